"""Adapts the channels of a medical image to a network pretrained on RGB photographs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.input_choices import CHANNEL_ADAPTATIONS, INPUT_CONSTANTS, INPUT_NORMS

__all__ = ["CHANNEL_ADAPTATIONS", "INPUT_NORMS", "InputAdapter"]

RGB = 3  # input channels of every released backbone


class InputAdapter(nn.Module):
    """Converts an image with any number of channels to the input of an RGB backbone.

    Channels:
        repeat: up to three channels are repeated cyclically (one: c0 c0 c0; two: c0 c1 c0); more than three fall back
            to `inflate`, because repeating would drop some.
        conv1x1: a trained 1x1 convolution to three channels that starts as the average of every third channel. Its
            gradient passes through the backbone, which costs time and memory even if the backbone is frozen.
        inflate: all channels are kept; the backbone's first convolution uses kernel `c mod 3` for channel c, times 3/C.

    Normalisation: `dataset` keeps nnU-Net's. The others expect intensities in [0, 1], subtract the mean of the
    backbone's training images and divide by their standard deviation, see `nnunetv2.model.input_choices`. Constants
    repeat cyclically: the fourth channel uses those of the first.

    Args:
        in_channels: C.
        channel_adaptation: rule for the channels.
        input_norm: normalisation.
        label_channels: so many of the channels, the last ones, are one-hot labels, which conv1x1 leaves out at first.

    Attributes:
        out_channels: number of input channels of the backbone.

    Raises:
        UsageError: the rule or the normalisation is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        channel_adaptation: str = "repeat",
        input_norm: str = "dataset",
        label_channels: int = 0,
    ) -> None:
        super().__init__()
        _require_known("channel_adaptation", channel_adaptation, CHANNEL_ADAPTATIONS)
        _require_known("input_norm", input_norm, INPUT_NORMS)
        many = channel_adaptation == "inflate" or (channel_adaptation == "repeat" and in_channels > RGB)
        self.out_channels = in_channels if many else RGB
        self.mix: nn.Conv2d | None = None
        if channel_adaptation == "conv1x1":
            self.mix = nn.Conv2d(in_channels, RGB, kernel_size=1)
            _init_channel_average(self.mix, in_channels - label_channels)
        self._repeat = channel_adaptation == "repeat" and in_channels < RGB
        constants = INPUT_CONSTANTS.get(input_norm)
        mean, std = (None, None) if constants is None else map(self._per_channel, constants)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        if self.mix is not None:
            x = self.mix(x)
        elif self._repeat:
            x = x.repeat(1, RGB, 1, 1)[:, :RGB]
        return x if self.mean is None else (x - self.mean) / self.std

    def _per_channel(self, values: Sequence[float]) -> Tensor:
        return torch.tensor([values[c % RGB] for c in range(self.out_channels)])[:, None, None]


def _require_known(setting: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"model.{setting}={value!r} is not known; choose one of {', '.join(choices)}")


def _init_channel_average(conv: nn.Conv2d, channels: int) -> None:
    """Of the first `channels`; the others start without influence."""
    weight = torch.zeros_like(conv.weight)
    for out in range(RGB):
        sources = list(range(out, channels, RGB)) or [out % channels]
        weight[out, sources] = 1 / len(sources)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.zero_()

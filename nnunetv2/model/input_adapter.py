"""From the channels of a medical image to those of a network made for RGB photographs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNEL_ADAPTATIONS = ("repeat", "conv1x1", "inflate")
INPUT_NORMS = ("dataset", "imagenet")
RGB = 3  # channels that every released backbone was trained on
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class InputAdapter(nn.Module):
    """Turns an image of nnU-Net's channels into what a backbone made for RGB accepts.

    Channels:
        repeat: up to three channels are repeated in turn (one: c0 c0 c0; two: c0 c1 c0); more than three are treated as
            `inflate`, because repeating would drop some.
        conv1x1: a trained 1x1 convolution to three channels that starts as the average of every third channel. Its
            gradient passes through the backbone, which costs time and memory even when that is frozen.
        inflate: all channels go in; the backbone's first convolution gets kernel `c mod 3` for channel c, times 3/C.

    Normalisation: `dataset` keeps nnU-Net's; `imagenet`, for intensities in [0, 1], subtracts ImageNet's mean and
    divides by its standard deviation.

    Attributes:
        out_channels: what the backbone is to be built with.
    """

    def __init__(self, in_channels: int, channel_adaptation: str = "repeat", input_norm: str = "dataset") -> None:
        super().__init__()
        many = channel_adaptation == "inflate" or (channel_adaptation == "repeat" and in_channels > RGB)
        self.out_channels = in_channels if many else RGB
        self.mix: nn.Conv2d | None = None
        if channel_adaptation == "conv1x1":
            self.mix = nn.Conv2d(in_channels, RGB, kernel_size=1)
            _init_channel_average(self.mix)
        self._repeat = channel_adaptation == "repeat" and in_channels < RGB
        self._imagenet = input_norm == "imagenet"
        for name, values in _IMAGENET.items():
            constants = torch.tensor([values[c % RGB] for c in range(self.out_channels)])
            self.register_buffer(name, constants[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        if self.mix is not None:
            x = self.mix(x)
        elif self._repeat:
            x = x.repeat(1, RGB, 1, 1)[:, :RGB]
        return (x - self.mean) / self.std if self._imagenet else x


def _init_channel_average(conv: nn.Conv2d) -> None:
    channels = conv.in_channels
    weight = torch.zeros_like(conv.weight)
    for out in range(RGB):
        sources = list(range(out, channels, RGB)) or [out % channels]
        weight[out, sources] = 1 / len(sources)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.zero_()

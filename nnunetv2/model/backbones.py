"""Vision transformers behind one interface: features at chosen blocks, channels, freezing, pretrained weights.

A family (`dinov3`) is a table of sizes; a size names the timm model that is built and the tag of its released weights.
Adding a family is adding a table.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError

logger = logging.getLogger(__name__)

CHANNEL_ADAPTATIONS = ("repeat", "conv1x1", "inflate")
INPUT_NORMS = ("dataset", "imagenet")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RGB = 3  # every released backbone was trained on three channels
_HUB_TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class BackboneSize:
    """One row of a family's table."""

    timm_name: str
    """Model of timm that is built."""
    weights: str | None
    """Tag of the released weights on timm's hub; None: there are none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that change the timm model."""


_LVD = "lvd1689m"

FAMILIES: dict[str, dict[str, BackboneSize]] = {
    "dinov3": {
        # An unreleased miniature of the same architecture, for demos and tests without a GPU.
        "tiny": BackboneSize(
            "vit_small_patch16_dinov3", None, {"embed_dim": 128, "depth": 4, "num_heads": 4, "init_values": 0.1}
        ),
        "small": BackboneSize("vit_small_patch16_dinov3", _LVD),
        "small_plus": BackboneSize("vit_small_plus_patch16_dinov3", _LVD),
        "base": BackboneSize("vit_base_patch16_dinov3", _LVD),
        "large": BackboneSize("vit_large_patch16_dinov3", _LVD),
        "huge_plus": BackboneSize("vit_huge_plus_patch16_dinov3", _LVD),
        "7b": BackboneSize("vit_7b_patch16_dinov3", _LVD),
    },
}


class TimmBackbone(nn.Module):
    """A timm vision transformer that hands out the patch tokens of chosen blocks.

    A backbone without trainable parameters stays in eval mode whatever `train()` is told, and runs without recording
    gradients unless its input needs them.

    Attributes:
        embed_dim: width D of the tokens.
        patch_size: side of a patch in pixels.
        num_blocks: number of transformer blocks.
        in_channels: channels of the images.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        self.embed_dim: int = vit.embed_dim
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.num_blocks: int = len(vit.blocks)
        self.n_blocks = self.num_blocks  # Meta's name
        self.in_channels: int = vit.patch_embed.proj.in_channels

    @property
    def is_trainable(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())

    def freeze(self) -> None:
        """Excludes every parameter from training."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode and self.is_trainable)
        return self

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Outputs of chosen blocks, in ascending order of the blocks.

        Args:
            x: (B, C, H, W); H and W are multiples of the patch size.
            n: the last n blocks, or 0-based block numbers in any order.
            reshape: (B, D, H/p, W/p) maps instead of (B, N, D) tokens.
            return_class_token: pairs each with its (B, D) class token.
            norm: applies the final normalisation to each output.

        Raises:
            ValueError: a block that does not exist.
        """
        blocks = sorted(range(self.num_blocks - n, self.num_blocks) if isinstance(n, int) else set(n))
        if not blocks or blocks[0] < 0 or blocks[-1] >= self.num_blocks:
            raise ValueError(f"blocks {blocks} were asked for; this backbone has blocks 0 to {self.num_blocks - 1}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.is_trainable or x.requires_grad)):
            outputs = self.vit.forward_intermediates(
                x,
                indices=blocks,
                return_prefix_tokens=True,
                norm=norm,
                stop_early=True,
                output_fmt="NCHW" if reshape else "NLC",
                intermediates_only=True,
            )
        if return_class_token:
            return tuple((patches, prefix[:, 0]) for patches, prefix in outputs)
        return tuple(patches for patches, _ in outputs)


class InputAdapter(nn.Module):
    """Turns an image of nnU-Net's channels into what a backbone made for RGB accepts.

    Channels:
        repeat: up to three channels are repeated in turn (one: c0 c0 c0; two: c0 c1 c0); more than three are treated as
            `inflate`, because repeating would drop some.
        conv1x1: a trained 1x1 convolution to three channels that starts as the average of every third channel. Its
            gradient passes through the backbone, which costs time and memory even when that is frozen.
        inflate: all channels go in; the backbone's first convolution gets kernel `c mod 3` for channel c, scaled by 3/C.

    Normalisation: `dataset` keeps nnU-Net's; `imagenet` subtracts ImageNet's mean and divides by its standard deviation,
    which expects intensities in [0, 1].

    Attributes:
        out_channels: what the backbone is to be built with.
    """

    def __init__(self, in_channels: int, channel_adaptation: str = "repeat", input_norm: str = "dataset") -> None:
        super().__init__()
        many = channel_adaptation == "inflate" or (channel_adaptation == "repeat" and in_channels > _RGB)
        self.out_channels = in_channels if many else _RGB
        self.mix: nn.Conv2d | None = None
        if channel_adaptation == "conv1x1":
            self.mix = nn.Conv2d(in_channels, _RGB, kernel_size=1)
            _init_channel_average(self.mix)
        self._repeats = [c % in_channels for c in range(_RGB)]
        self._repeat = channel_adaptation == "repeat" and in_channels < _RGB
        self._imagenet = input_norm == "imagenet"
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            constants = torch.tensor([values[c % _RGB] for c in range(self.out_channels)])
            self.register_buffer(name, constants[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H, W)."""
        if self.mix is not None:
            x = self.mix(x)
        elif self._repeat:
            x = x[:, self._repeats]
        return (x - self.mean) / self.std if self._imagenet else x


def _init_channel_average(conv: nn.Conv2d) -> None:
    channels = conv.in_channels
    weight = torch.zeros_like(conv.weight)
    for out in range(_RGB):
        sources = list(range(out, channels, _RGB)) or [out % channels]
        weight[out, sources] = 1 / len(sources)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.zero_()


def find_backbone(name: str, size: str) -> BackboneSize:
    """The table row of a backbone; an unknown name or size raises `UsageError` with those that exist."""
    if name not in FAMILIES:
        raise UsageError(f"model.backbone={name!r} is not known; choose one of {', '.join(FAMILIES)}")
    if size not in FAMILIES[name]:
        near = difflib.get_close_matches(size, FAMILIES[name], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"model.backbone_size={size!r}: {name} has {', '.join(FAMILIES[name])}{hint}")
    return FAMILIES[name][size]


def create_backbone(name: str, size: str, *, in_channels: int = _RGB) -> TimmBackbone:
    """Builds a backbone with random weights; `load_backbone_weights` fills it.

    Args:
        name: family, for example `dinov3`.
        size: row of the family's table, for example `large`.
        in_channels: channels of its input, see `InputAdapter.out_channels`.
    """
    import timm

    row = find_backbone(name, size)
    return TimmBackbone(timm.create_model(row.timm_name, num_classes=0, in_chans=in_channels, **row.options))


def find_weights(name: str, size: str, *, pretrained: bool, checkpoint: str | None) -> Path | None:
    """Decides where a backbone's weights come from, downloading them if they are not there yet.

    Args:
        name: family.
        size: row of the family's table.
        pretrained: take the released weights, from timm's hub or its local cache.
        checkpoint: a file of weights; it goes before `pretrained`.

    Returns:
        The file of weights, or None if training starts from random ones, which the log says.

    Raises:
        UsageError: the weights cannot be had.
    """
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise UsageError(f"model.checkpoint={checkpoint} does not exist; give a file of {name} {size} weights")
        return Path(checkpoint)
    row = find_backbone(name, size)
    if not pretrained:
        logger.warning("The %s %s backbone starts from random weights (model.pretrained=false)", name, size)
        return None
    if row.weights is None:
        raise UsageError(
            f"There are no released weights for {name} {size}: set model.pretrained=false to train it from scratch, or "
            f"model.checkpoint=FILE to take your own"
        )
    return _from_hub(f"timm/{row.timm_name}.{row.weights}")


def _from_hub(repository: str) -> Path:
    """The cached or downloaded weights of a repository on the Hugging Face hub."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, constants.SAFETENSORS_SINGLE_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        _require_reachable(constants.ENDPOINT)
        return Path(hf_hub_download(repository, constants.SAFETENSORS_SINGLE_FILE, etag_timeout=_HUB_TIMEOUT))
    except Exception as err:  # the hub's client raises errors of several libraries
        raise UsageError(
            f"The pretrained weights {repository} are not in the local cache and could not be downloaded "
            f"({type(err).__name__}: {str(err).strip() or 'no reason given'}); set model.checkpoint=FILE to use a local "
            f"file, or model.pretrained=false to train from scratch"
        ) from err


def _require_reachable(url: str) -> None:
    """Raises `OSError` within seconds if nothing answers: the hub's client would retry for half a minute."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method="HEAD"), timeout=_HUB_TIMEOUT).close()
    except HTTPError as answer:  # any status is an answer
        answer.close()


def load_backbone_weights(backbone: TimmBackbone, path: Path) -> None:
    """Fills a backbone, with or without LoRA, from a file with timm's or Meta's key names.

    A first convolution for other than three channels is filled by the rule `inflate` of `InputAdapter`.

    Raises:
        UsageError: the file is not a file of weights, or its tensors do not fit exactly.
    """
    weights = _with_timm_names(_read_tensors(path))
    stem = "patch_embed.proj.weight"
    if stem in weights and weights[stem].shape[1] == _RGB != backbone.in_channels:
        channels = backbone.in_channels
        weights[stem] = weights[stem][:, [c % _RGB for c in range(channels)]] * (_RGB / channels)
    # LoRA keeps the layer that it adapts as `base_layer`; its own tensors are in no file.
    names = {key.replace(".base_layer.", "."): key for key in backbone.vit.state_dict() if ".lora_" not in key}
    expected = {name: backbone.vit.get_parameter(key) for name, key in names.items()}
    problems = [f"{key} is missing" for key in expected if key not in weights]
    problems += [f"{key} is not part of the model" for key in weights if key not in expected]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UsageError(f"{path} does not fit the backbone: {'; '.join(problems[:3])}{more}")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name])
    logger.info("Backbone weights: %s", path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    import pickle

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, _safetensors_error()) as err:
        raise UsageError(f"{path} cannot be read as a file of weights: {str(err).splitlines()[0]}") from err
    for container in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path} holds no plain state dict (names and tensors)")
    return content


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


_META_PARTS = {  # Meta's part of a key -> timm's
    "storage_tokens": "reg_token",
    "ls1.gamma": "gamma_1",
    "ls2.gamma": "gamma_2",
    "mlp.w1.": "mlp.fc1_g.",
    "mlp.w2.": "mlp.fc1_x.",
    "mlp.w3.": "mlp.fc2.",
}
_META_UNUSED = ("rope_embed.periods", "mask_token", "attn.qkv.bias_mask")  # constants, and what only pretraining needs


def _with_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a DINOv3 file in Meta's format; other files pass unchanged."""
    if "storage_tokens" not in weights:
        return dict(weights)
    renamed = {}
    for key, tensor in weights.items():
        if key.endswith(_META_UNUSED) or key.startswith("local_cls_norm."):
            continue
        if key.endswith("attn.qkv.bias") and not tensor.any():
            continue  # zero in the released files; timm's models have none
        for theirs, ours in _META_PARTS.items():
            key = key.replace(theirs, ours)
        renamed[key] = tensor
    return renamed

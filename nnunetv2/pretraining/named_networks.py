"""Networks that nnssl's checkpoints name: presets without arguments, and Primus of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

TOKEN = (8, 8, 8)  # voxels of Primus
_PRIMUS_ARGUMENTS = {
    "embed_dim",
    "patch_embed_size",
    "encoder_eva_depth",
    "encoder_eva_numheads",
    "init_values",
    "scale_attn_inner",
}
_DROP_PATH = 0.2  # of Primus with arguments of its own
_RESENC_L = {
    "n_stages": 6,
    "features_per_stage": (32, 64, 128, 256, 320, 320),
    "conv_op": "torch.nn.Conv3d",
    "kernel_sizes": 3,
    "strides": (1, 2, 2, 2, 2, 2),
    "n_blocks_per_stage": (1, 3, 4, 6, 6, 6),
    "n_conv_per_stage_decoder": (1, 1, 1, 1, 1),
    "conv_bias": True,
    "norm_op": "torch.nn.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
_IMPORTED = ("conv_op", "norm_op", "nonlin")
_UNETS = ("PlainConvUNet", "ResidualEncoderUNet")


def get_network_from_name(
    architecture_name: str,
    input_channels: int,
    output_channels: int,
    input_patchsize: Sequence[int] | None = None,
    allow_init: bool = True,
    deep_supervision: bool | None = None,
) -> nn.Module:
    """Builds a preset: `ResEncL`, or `PrimusS`, `PrimusB`, `PrimusM` and `PrimusL`.

    Args:
        architecture_name: of the preset.
        input_channels: of the images.
        output_channels: logits of each voxel.
        input_patchsize: voxels per axis; for Primus.
        allow_init: draw the weights of ResEncL as its class does, instead of torch's defaults.
        deep_supervision: outputs of ResEncL at several resolutions; None: one output.

    Raises:
        UsageError: a ValueError: no such preset, or a patch that Primus cannot divide into tokens.
    """
    if architecture_name not in _PRESETS:
        raise UsageError(
            f"There is no network of the name {architecture_name}; known are {', '.join(_PRESETS)}, and the networks "
            f"that plans describe with arguments"
        )
    build = _PRESETS[architecture_name]
    return build(input_channels, output_channels, input_patchsize, allow_init, bool(deep_supervision))


def network_of_plans(
    name: str,
    arguments: Mapping[str, Any] | None,
    to_import: Sequence[str] | None,
    *,
    input_channels: int,
    output_channels: int,
    patch_size: Sequence[int],
    is_primus: bool,
) -> nn.Module:
    """Builds the network that plans made for a checkpoint describe; it has one output.

    Args:
        name: class, with or without its module, or preset.
        arguments: of the class; None or empty: it is a preset.
        to_import: arguments that are dotted names.
        input_channels: of the images.
        output_channels: logits of each voxel.
        patch_size: voxels per axis.
        is_primus: the training is for Primus, whose arguments tell its size whatever the name.

    Raises:
        UsageError: the network is unknown, or of another kind than the training is for.
    """
    if not arguments:
        return get_network_from_name(name, input_channels, output_channels, patch_size)
    if is_primus:
        return _primus_of(arguments, input_channels, output_channels, patch_size)
    if not name.endswith(_UNETS):
        raise UsageError(
            f"The plans describe the network {name}, and this trainer is for {', '.join(_UNETS)} and presets; for "
            f"Primus, choose one of the trainers PretrainedTrainer_Primusx"
        )
    return get_network_from_plans(
        name, arguments, to_import or (), input_channels, output_channels, allow_init=True, deep_supervision=False
    )


def _primus_of(
    arguments: Mapping[str, Any], input_channels: int, output_channels: int, patch_size: Sequence[int]
) -> nn.Module:
    if missing := sorted(_PRIMUS_ARGUMENTS - arguments.keys()):
        raise UsageError(
            f"The plans describe no Primus: their architecture has no {', '.join(missing)}; choose a trainer for its "
            f"network, such as PretrainedTrainer"
        )
    from dynamic_network_architectures.architectures.primus import Primus

    _require_tokens(patch_size, arguments["patch_embed_size"])
    scale = arguments["init_values"]
    return Primus(
        input_channels,
        arguments["embed_dim"],
        tuple(arguments["patch_embed_size"]),
        output_channels,
        arguments["encoder_eva_depth"],
        arguments["encoder_eva_numheads"],
        tuple(patch_size),
        drop_path_rate=_DROP_PATH,
        scale_attn_inner=arguments["scale_attn_inner"],
        init_values=scale[0] if isinstance(scale, (list, tuple)) else scale,
    )


def _preset_primus(
    size: str, channels: int, outputs: int, patch_size: Sequence[int] | None, allow_init: bool, deep: bool
) -> nn.Module:
    from dynamic_network_architectures.architectures import primus

    if patch_size is None:
        raise UsageError(f"Primus{size} needs the size of its patches, for its positional embedding")
    _require_tokens(patch_size, TOKEN)
    return getattr(primus, f"Primus{size}")(
        channels, outputs, TOKEN, tuple(patch_size), scale_attn_inner=True, init_values=0.1
    )


def _resenc_l(channels: int, outputs: int, patch_size: Sequence[int] | None, allow_init: bool, deep: bool) -> nn.Module:
    return get_network_from_plans(
        "ResidualEncoderUNet",
        _RESENC_L,
        _IMPORTED,
        channels,
        outputs,
        allow_init=allow_init,
        deep_supervision=deep,
    )


def _require_tokens(patch_size: Sequence[int], token: Sequence[int]) -> None:
    if len(patch_size) != len(token) or any(side % step for side, step in zip(patch_size, token, strict=True)):
        raise UsageError(
            f"Primus divides its patches into tokens of {' x '.join(map(str, token))} voxels, and the plans say "
            f"{list(patch_size)}; set a patch_size of multiples"
        )


_PRESETS: Mapping[str, Callable[..., nn.Module]] = {
    "ResEncL": _resenc_l,
    **{f"Primus{size}": partial(_preset_primus, size) for size in "SBML"},
}

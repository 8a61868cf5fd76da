"""Number of values in all feature maps of a network: the planner's estimate of GPU memory in training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class NetworkName(str):
    """Dotted name of a network class, with the `__module__` and `__name__` of the class but without importing it.

    Planners written for upstream read these two attributes from `UNet_class`.
    """

    def __init__(self, dotted_name: str) -> None:
        self.__module__, _, self.__name__ = dotted_name.rpartition(".")


_UNETS = "dynamic_network_architectures.architectures.unet"
PLAIN_CONV_UNET = NetworkName(f"{_UNETS}.PlainConvUNet")
RESIDUAL_ENCODER_UNET = NetworkName(f"{_UNETS}.ResidualEncoderUNet")

_COUNTED_DIRECTLY = {
    PLAIN_CONV_UNET: "n_conv_per_stage",
    RESIDUAL_ENCODER_UNET: "n_blocks_per_stage",
}
# Arguments that change the number or position of convolutions; with these, the network itself is built and queried.
_STRUCTURAL = {"block", "bottleneck_channels", "stem_channels", "deep_supervision"}


def conv_feature_map_size(
    patch_size: Sequence[int],
    input_channels: int,
    output_channels: int,
    arch_class_name: str,
    arch_kwargs: Mapping[str, Any],
    arch_kwargs_req_import: Sequence[str],
) -> int:
    """Returns `network.compute_conv_feature_map_size(patch_size)` for the network of an architecture.

    For the two U-Nets of nnU-Net this is computed without building a network. Others are built on torch's device
    "meta", without memory for weights, and queried.
    """
    if arch_class_name in _COUNTED_DIRECTLY and not _STRUCTURAL & set(arch_kwargs):
        return _unet_feature_map_size(patch_size, output_channels, arch_class_name, arch_kwargs)
    import torch

    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    with torch.device("meta"):
        network = get_network_from_plans(
            arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels, output_channels, allow_init=False
        )
    return int(network.compute_conv_feature_map_size(patch_size))


def _unet_feature_map_size(
    patch_size: Sequence[int], output_channels: int, arch_class_name: str, arch_kwargs: Mapping[str, Any]
) -> int:
    depths = arch_kwargs[_COUNTED_DIRECTLY[arch_class_name]]
    features = arch_kwargs["features_per_stage"]
    num_voxels = list(_voxels_per_stage(patch_size, arch_kwargs["strides"]))
    if arch_class_name == PLAIN_CONV_UNET:
        total = sum(d * f * n for d, f, n in zip(depths, features, num_voxels, strict=True))
    else:
        total = _residual_encoder_size(math.prod(patch_size), num_voxels, features, depths)
    # There is a decoder stage for every encoder stage but the bottom one; each adds a transposed convolution.
    decoder_depths = list(arch_kwargs["n_conv_per_stage_decoder"])[::-1]
    skips = zip(decoder_depths, features[:-1], num_voxels[:-1], strict=True)
    total += sum((d + 1) * f * n for d, f, n in skips)
    has_decoder = len(num_voxels) > 1  # without a decoder there are no outputs either
    return total + has_decoder * output_channels * num_voxels[0]


def _residual_encoder_size(
    num_input_voxels: int, num_voxels: Sequence[int], features: Sequence[int], depths: Sequence[int]
) -> int:
    """Counts a stem and blocks of two convolutions; a block that changes channels or size has a third in its skip."""
    total = features[0] * num_input_voxels
    previous = (features[0], num_input_voxels)
    for depth, channels, voxels in zip(depths, features, num_voxels, strict=True):
        has_skip_convolution = previous != (channels, voxels)
        total += (2 * depth + has_skip_convolution) * channels * voxels
        previous = (channels, voxels)
    return total


def _voxels_per_stage(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> Iterator[int]:
    sizes = list(patch_size)
    for stride in strides:
        sizes = [size // step for size, step in zip(sizes, stride, strict=True)]
        yield math.prod(sizes)

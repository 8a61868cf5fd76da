"""The `architecture` entry of the plans for a U-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.network_topology import Topology


def unet_architecture(
    topology: Topology,
    network_class: str | type,
    *,
    base_features: int,
    max_features: int,
    encoder_depths: Mapping[str, Sequence[int]],
    decoder_depths: Sequence[int],
) -> dict[str, Any]:
    """Returns class and arguments of the network; the order of keys is part of the format.

    Args:
        topology: strides and kernel sizes of the stages.
        network_class: the class, or its dotted name.
        base_features: channels of the first stage; they double from stage to stage.
        max_features: upper limit for channels.
        encoder_depths: convolutions or blocks per stage, under the name that the class gives them; may list more stages
            than there are.
        decoder_depths: convolutions per decoder stage; may list more stages than there are.
    """
    num_axes, num_stages = len(topology.patch_size), len(topology.strides)
    if not isinstance(network_class, str):
        network_class = f"{network_class.__module__}.{network_class.__name__}"
    return {
        "network_class_name": network_class,
        "arch_kwargs": {
            "n_stages": num_stages,
            "features_per_stage": tuple(min(max_features, base_features * 2**stage) for stage in range(num_stages)),
            "conv_op": f"torch.nn.modules.conv.Conv{num_axes}d",
            "kernel_sizes": topology.kernel_sizes,
            "strides": topology.strides,
            **{name: tuple(depths[:num_stages]) for name, depths in encoder_depths.items()},
            "n_conv_per_stage_decoder": tuple(decoder_depths[: num_stages - 1]),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{num_axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ("conv_op", "norm_op", "dropout_op", "nonlin"),
    }

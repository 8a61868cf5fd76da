"""Derive the network of plans written before nnU-Net introduced the `architecture` entry."""

from __future__ import annotations

import copy
import logging

from nnunetv2.errors import DataError

logger = logging.getLogger(__name__)

# Old class name -> (dotted path of the class, keyword for the number of blocks in each encoder stage).
_NETWORKS = {
    "PlainConvUNet": ("dynamic_network_architectures.architectures.unet.PlainConvUNet", "n_conv_per_stage"),
    "ResidualEncoderUNet": (
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "n_blocks_per_stage",
    ),
}

_REPLACED_KEYS = (
    "UNet_class_name",
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "num_pool_per_axis",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
)


def with_architecture(configuration: dict) -> dict:
    """Return the configuration unchanged if it has an `architecture` entry, else a copy with a derived one.

    Raises:
        DataError: it has neither this entry nor the keys to derive it from.
    """
    if "architecture" in configuration:
        return configuration
    name = configuration.get("UNet_class_name")
    if name not in _NETWORKS:
        raise DataError(
            f"The configuration describes no known network: it has no `architecture` entry, and its old key "
            f"UNet_class_name is {name!r} (known: {', '.join(_NETWORKS)}); run nnUNetv2_plan_experiment again"
        )
    logger.info("These plans are of an old format; their %s is rebuilt from the old keys", name)
    try:
        architecture = _architecture_from_old_keys(configuration, *_NETWORKS[name])
    except KeyError as err:
        raise DataError(f"The old plans lack the key {err} of {name}; run nnUNetv2_plan_experiment again") from err
    kept = {key: value for key, value in configuration.items() if key not in _REPLACED_KEYS}
    return {**copy.deepcopy(kept), "architecture": architecture}


def _architecture_from_old_keys(old: dict, class_path: str, blocks_keyword: str) -> dict:
    dimension = len(old["patch_size"])
    num_stages = len(old["n_conv_per_stage_encoder"])
    widths = [
        min(old["UNet_base_num_features"] * 2**stage, old["unet_max_num_features"]) for stage in range(num_stages)
    ]
    # The keywords not read from `old` were fixed in that format.
    keywords = {
        "n_stages": num_stages,
        "features_per_stage": widths,
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": old["conv_kernel_sizes"],
        "strides": old["pool_op_kernel_sizes"],
        blocks_keyword: old["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": old["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": class_path,
        "arch_kwargs": copy.deepcopy(keywords),
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }

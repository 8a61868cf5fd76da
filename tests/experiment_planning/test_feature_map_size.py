from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetv2.experiment_planning.experiment_planners.feature_map_size import (
    PLAIN_CONV_UNET,
    RESIDUAL_ENCODER_UNET,
    conv_feature_map_size,
)
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props, unet_architecture
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

DEPTHS = {
    PLAIN_CONV_UNET: {"n_conv_per_stage": (2, 1, 3, 2, 2, 2, 2)},
    RESIDUAL_ENCODER_UNET: {"n_blocks_per_stage": (1, 3, 4, 6, 6, 6, 6)},
}


def architecture(network: str, spacing, patch_size) -> tuple[dict, tuple[int, ...]]:
    topology = get_pool_and_conv_props(spacing, patch_size, 4, 999)
    entry = unet_architecture(
        topology,
        network,
        base_features=4,
        max_features=20,
        encoder_depths=DEPTHS[network],
        decoder_depths=(2, 1, 3, 1, 2, 2),
    )
    return entry, topology.patch_size


@pytest.mark.parametrize("network", [PLAIN_CONV_UNET, RESIDUAL_ENCODER_UNET])
@pytest.mark.parametrize(
    ("spacing", "patch_size"),
    [((3, 0.8, 0.8), (20, 70, 60)), ((1, 1, 1), (32, 40, 48)), ((1, 1), (200, 90)), ((1, 9), (4, 5))],
)
def test_arithmetic_equals_what_the_network_says(network, spacing, patch_size):
    entry, patch_size = architecture(network, spacing, patch_size)
    arguments = (entry["network_class_name"], entry["arch_kwargs"], entry["_kw_requires_import"])
    with torch.device("meta"):
        built = get_network_from_plans(*arguments, 2, 3, allow_init=False)
    assert conv_feature_map_size(patch_size, 2, 3, *arguments) == built.compute_conv_feature_map_size(patch_size)


def test_other_arguments_let_the_network_count():
    entry, patch_size = architecture(RESIDUAL_ENCODER_UNET, (1, 1), (64, 64))
    wide_stem = {**entry["arch_kwargs"], "stem_channels": 32}
    sizes = [
        conv_feature_map_size(patch_size, 1, 2, RESIDUAL_ENCODER_UNET, kwargs, entry["_kw_requires_import"])
        for kwargs in (entry["arch_kwargs"], wide_stem)
    ]
    # The stem has 28 channels more; it also makes the first block need a convolution in its skip, of 4 channels.
    assert sizes[1] - sizes[0] == (28 + 4) * np.prod(patch_size)

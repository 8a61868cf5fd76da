"""The setting `backbone_out_layers`: names and lists of blocks, for every head that reads blocks."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.chosen_blocks import chosen_blocks
from nnunetv2.model.model import ViTSegmentationModel
from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.model.model_segformer import SegFormerSegmentationModel

NETWORKS = [ViTSegmentationModel, SegFormerSegmentationModel, M2FSegmentationModel]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("FOUR_EVEN_INTERVALS", [4, 11, 17, 23]),
        ("FOUR_LAST", [20, 21, 22, 23]),
        ([5, 11, 17, 23], [5, 11, 17, 23]),  # the blueprint's choice
        ([4, 11, 17, 23], [4, 11, 17, 23]),  # Meta's
        ((0, 1, 2, 3), [0, 1, 2, 3]),
    ],
)
def test_names_and_lists_stand_for_blocks_of_24(layers, expected):
    assert chosen_blocks(24, layers) == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [5, 5, 11, 17],
            r"backbone_out_layers=\[5, 5, 11, 17\] cannot be read: .* ascending block indices from 0 to 23",
        ),
        ([11, 5, 17, 23], "list ascending block indices"),
        ([5, 11, 17, 24], "from 0 to 23"),
        ([-1, 5, 11, 17], "from 0 to 23"),
        ([5, 11, 23], "names 3 blocks; name 4"),
        ([1, 2, 3, 4, 5], "names 5 blocks; name 4"),
        ([], "list ascending block indices"),
        ("LAST", "backbone_out_layers=LAST names 1 blocks; name 4"),
        ("EVEN", "backbone_out_layers=EVEN cannot be read: .* choose one of LAST, FOUR_LAST, FOUR_EVEN_INTERVALS"),
        ([5, 11, 17.5, 23], "must list whole numbers"),
        (["a", "b", "c", "d"], "must list whole numbers"),
    ],
)
def test_other_choices_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        chosen_blocks(24, layers)


def blocks_read(network: torch.nn.Module) -> list[int]:
    if isinstance(network, M2FSegmentationModel):
        return network.head.decoder.segmentation_model[0].interaction_indexes
    return network.out_indices


@pytest.mark.parametrize("network_class", NETWORKS)
def test_every_head_reads_the_blocks_that_are_listed(network_class):
    blueprints = [5, 11, 17, 23]
    with torch.device("meta"):
        network = network_class(
            1, 2, backbone="dinov3_native", backbone_size="large", tuning="full", backbone_out_layers=blueprints
        )
    assert blocks_read(network) == blueprints


@pytest.mark.parametrize("network_class", NETWORKS)
def test_the_maps_of_the_listed_blocks_reach_the_head(network_class):
    network = network_class(
        1, 2, backbone="dinov3", backbone_size="tiny", tuning="full", backbone_out_layers=[0, 1, 2, 3]
    )
    read = []
    original = network.backbone.read_blocks
    network.backbone.read_blocks = lambda x, blocks, **options: read.append(blocks) or original(x, blocks, **options)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, 32, 32))
    assert read == [[0, 1, 2, 3]]


@pytest.mark.parametrize("network_class", NETWORKS)
def test_a_network_refuses_what_cannot_be_read(network_class):
    for layers in ([0, 1, 2, 4], [0, 1, 1, 2], [0, 1, 2]):
        with pytest.raises(UsageError, match=r"The settings of the model do not fit: model.backbone_out_layers=\[0, 1"):
            network_class(1, 2, backbone="dinov3", backbone_size="tiny", backbone_out_layers=layers)

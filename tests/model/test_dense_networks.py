"""Networks with a dense head: the contract of all networks, and what is special about each."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.heads.segformer import STRATEGIES, feature_pyramid
from nnunetv2.model.heads.upernet import ProgressiveUpsampleDecoder
from nnunetv2.model.model import ViTSegmentationModel, create_segmentation_model
from nnunetv2.model.model_segformer import SegFormerSegmentationModel, create_segformer_model
from tests.model.model_contract import ModelContract

TINY = {"backbone_size": "tiny", "tuning": "full"}


class TestUperNet(ModelContract):
    network_class = ViTSegmentationModel
    arch_kwargs = TINY | {"hidden_size": 32}


class TestUperNetWithoutUpsampling(ModelContract):
    network_class = ViTSegmentationModel
    arch_kwargs = TINY | {"hidden_size": 32, "use_progressive_upsample": False}


class TestSegFormerLayers(ModelContract):
    network_class = SegFormerSegmentationModel
    arch_kwargs = TINY | {"decoder_hidden_size": 32, "feature_strategy": "layers"}


class TestSegFormerPyramid(ModelContract):
    network_class = SegFormerSegmentationModel
    arch_kwargs = TINY | {"decoder_hidden_size": 32, "feature_strategy": "pyramid"}


class TestSegFormerProgressive(ModelContract):
    network_class = SegFormerSegmentationModel
    arch_kwargs = TINY | {"decoder_hidden_size": 32, "feature_strategy": "progressive"}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1), (4, 5), (3, 6)])
def test_a_pyramid_has_the_scales_of_its_strategy(strategy: str, size: tuple[int, int]) -> None:
    maps = [torch.randn(2, 8, *size) for _ in range(4)]
    shapes = [tuple(level.shape[-2:]) for level in feature_pyramid(strategy, 8)(maps)]
    height, width = size
    coarsest = (-(-height // 2), -(-width // 2))
    finer = [(4 * height, 4 * width), (2 * height, 2 * width), size, coarsest]
    assert shapes == ([size] * 4 if strategy == "layers" else finer)


@pytest.mark.parametrize(
    ("strategy", "reached"),
    [
        ("layers", [[0], [1], [2], [3]]),
        ("pyramid", [[0], [1], [2], [3]]),
        ("progressive", [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
    ],
)
def test_each_depth_reaches_the_levels_of_its_strategy(seeded: int, strategy: str, reached: list[list[int]]) -> None:
    """The shallowest map makes the finest level alone; in a progressive pyramid the deepest makes all of them."""
    maps, pyramid = [torch.randn(1, 8, 4, 6) for _ in range(4)], feature_pyramid(strategy, 8)
    before = pyramid(maps)
    for depth, expected in enumerate(reached):
        after = pyramid([torch.randn_like(each) if place == depth else each for place, each in enumerate(maps)])
        assert [level for level in range(4) if not torch.equal(before[level], after[level])] == expected


def test_the_upsampling_decoder_begins_with_the_deepest_map() -> None:
    decoder, seen = ProgressiveUpsampleDecoder(16, 8, 3), []
    for stage in decoder.stages:
        stage.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    maps = [torch.randn(1, 8, 2, 3) for _ in range(4)]
    assert decoder(torch.randn(1, 16, 2, 3), maps).shape == (1, 3, 32, 48)
    assert all(given is expected for given, expected in zip(seen, reversed(maps), strict=True))


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="feature_strategy='fpn' is not known; choose one of layers, pyramid, progr"):
        SegFormerSegmentationModel(3, 2, feature_strategy="fpn", **TINY)


def test_the_heads_are_those_of_transformers() -> None:
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead
    from transformers.models.upernet.modeling_upernet import UperNetHead

    assert type(SegFormerSegmentationModel(3, 2, **TINY).head.decode_head) is SegformerDecodeHead
    assert type(ViTSegmentationModel(3, 2, **TINY).head.head) is UperNetHead


def test_a_single_image_cannot_train_upernet_and_is_told_why() -> None:
    network = ViTSegmentationModel(3, 2, hidden_size=32, **TINY)
    with pytest.raises(UsageError, match="batch_size of at least 2"):
        network(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("flags", "trained"),
    [({}, 0), ({"use_lora": True}, 4 * 2 * 2), ({"freeze_backbone": False}, None)],
    ids=["frozen", "lora", "full"],
)
@pytest.mark.parametrize("create", [create_segmentation_model, create_segformer_model])
def test_the_factories_choose_what_of_the_backbone_is_trained(create, flags: dict, trained: int | None) -> None:
    network = create(num_classes=2, backbone_size="tiny", **flags)
    parameters = list(network.backbone.parameters())
    count = sum(parameter.requires_grad for parameter in parameters)
    assert count == (len(parameters) if trained is None else trained)
    assert all(p.requires_grad for n, p in network.named_parameters() if not n.startswith("encoder."))


def test_blocks_can_be_named_one_by_one() -> None:
    network = SegFormerSegmentationModel(3, 2, backbone_out_layers=[0, 1, 2, 3], **TINY)
    assert network.out_indices == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="names 2 blocks; name 4"):
        SegFormerSegmentationModel(3, 2, backbone_out_layers=[0, 3], **TINY)

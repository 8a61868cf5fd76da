"""DPT's head does what transformers' `DPTNeck` and `DPTSemanticSegmentationHead` do with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import BackboneSpec
from nnunetv2.model.heads.dpt import DPT, FusionBlock, ResidualUnit, default_widths
from nnunetv2.training.nnUNetTrainer.any_head_config import load_any_head_config
from nnunetv2.training.state.architecture_check import architecture_differences
from tests.model.heads.head_cases import (
    SPECS,
    assert_segments_any_size_and_trains,
    network_of,
    num_parameters,
    random_features,
    spec_of,
    with_random_statistics,
)

UNUSED = "neck.fusion_stage.layers.0.residual_layer1."  # of transformers, in the deepest fusion block
SMALL = {"fusion_hidden_size": 16, "neck_hidden_sizes": [8, 16, 24, 32]}


def make(spec: BackboneSpec, num_classes: int = 3, **settings: Any) -> DPT:
    return DPT(DPT.Config(**settings), spec, num_classes)


class TheirDPT(nn.Module):
    """The two modules of transformers for the same settings."""

    def __init__(self, config: DPT.Config, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        from transformers import DPTConfig
        from transformers.models.dpt.modeling_dpt import DPTNeck, DPTSemanticSegmentationHead

        options = DPTConfig(
            hidden_size=embed_dim,
            neck_hidden_sizes=config.neck_hidden_sizes,
            fusion_hidden_size=config.fusion_hidden_size,
            reassemble_factors=[4, 2, 1, 0.5],
            readout_type=config.readout_type,
            num_labels=num_classes,
            semantic_classifier_dropout=config.dropout,
            use_batch_norm_in_fusion_residual=config.use_batch_norm_in_fusion_residual,
        )
        self.neck, self.head = DPTNeck(options), DPTSemanticSegmentationHead(options)

    def forward(self, features):
        height, width = features.maps[0].shape[-2:]
        tokens = [
            torch.cat((prefix[:, :1], level.flatten(2).transpose(1, 2)), dim=1)
            for level, prefix in zip(features.maps, features.prefix_tokens, strict=True)
        ]
        return self.head(self.neck(tokens, patch_height=height, patch_width=width))


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (4, 9), (1, 1)])
@pytest.mark.parametrize(
    ("readout_type", "has_batch_norm"), [("project", True), ("project", False), ("add", True), ("ignore", True)]
)
def test_it_equals_that_of_transformers(readout_type, has_batch_norm, grid, is_training, seeded):
    settings = SMALL | {"readout_type": readout_type, "use_batch_norm_in_fusion_residual": has_batch_norm}
    spec = spec_of(32)
    head = with_random_statistics(make(spec, dropout=0, **settings)).train(is_training)
    theirs = TheirDPT(DPT.Config(dropout=0, **settings), 32, 3).train(is_training)
    missing, unexpected = theirs.load_state_dict(head.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith(UNUSED) for name in missing)
    features = random_features(spec, grid, batch_size=3)
    with torch.no_grad():
        ours, expected = head(features), theirs(features)
    assert ours.shape == (3, 3, *(16 * (side + side % 2) for side in grid))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    for name, statistics in head.named_buffers():
        torch.testing.assert_close(statistics, theirs.get_buffer(name))


def test_gradients_equal_those_of_transformers(seeded):
    spec = spec_of(32)
    head = with_random_statistics(make(spec, dropout=0, **SMALL)).train()
    theirs = TheirDPT(DPT.Config(dropout=0, **SMALL), 32, 3).train()
    theirs.load_state_dict(head.state_dict(), strict=False)
    features = random_features(spec, (3, 4))
    for network in (head, theirs):
        (network(features) ** 2).mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.pop(name), atol=1e-5, rtol=1e-4)
    assert all(name.startswith(UNUSED) and gradient is None for name, gradient in gradients.items())


@pytest.mark.parametrize(
    ("size", "readout_type", "with_unused_unit"),
    [
        ("S", "project", 19_888_258),
        ("B", "project", 41_568_514),
        ("L", "project", 62_739_458),
        ("S", "add", 18_707_074),
        ("B", "ignore", 36_846_850),
        ("L", "add", 54_346_754),
    ],
)
def test_number_of_parameters_of_the_origin_forks_settings(size, readout_type, with_unused_unit):
    spec = SPECS[size]
    number = num_parameters(DPT, spec, readout_type=readout_type, neck_hidden_sizes=[spec.embed_dim] * 4)
    unit = 2 * (9 * 256 * 256 + 2 * 256)
    assert unit == 1_180_672
    assert number == with_unused_unit - unit


@pytest.mark.parametrize("size", SPECS)
def test_number_of_parameters_of_the_defaults(size):
    spec = SPECS[size]
    with torch.device("meta"):
        theirs = TheirDPT(DPT.Config(neck_hidden_sizes=default_widths(spec.embed_dim)), spec.embed_dim, 2)
    expected = sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith(UNUSED))
    assert num_parameters(DPT, spec) == expected


def test_the_default_pyramid_is_the_papers_for_base_and_large_and_scaled_for_others():
    assert default_widths(768) == [96, 192, 384, 768]
    assert default_widths(1024) == [256, 512, 1024, 1024]
    assert default_widths(384) == [48, 96, 192, 384]
    assert default_widths(4096) == [1024, 2048, 4096, 4096]
    assert default_widths(4) == [1, 1, 2, 4]


def test_levels_have_four_scales():
    stage = make(spec_of(32), **SMALL).neck.reassemble_stage
    features = random_features(spec_of(32), (5, 8))
    shapes = [tuple(level.shape[1:]) for level in stage(features.maps, features.class_tokens)]
    assert shapes == [(8, 20, 32), (16, 10, 16), (24, 5, 8), (32, 3, 4)]


def test_registers_are_not_read(seeded):
    head = make(spec_of(32), **SMALL).eval()
    features = random_features(spec_of(32), (2, 3))
    before = head(features)
    for prefix in features.prefix_tokens:
        prefix[:, 1:] += 1
    assert torch.equal(head(features), before)
    features.prefix_tokens[2][:, 0] += 1
    assert not torch.allclose(head(features), before)


def test_the_deepest_block_adds_nothing():
    blocks = make(spec_of(32), **SMALL).neck.fusion_stage.layers
    assert [hasattr(block, "residual_layer1") for block in blocks] == [False, True, True, True]


def test_a_block_adds_and_enlarges_by_hand():
    block = FusionBlock(1, has_skip=True, has_batch_norm=False)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(block.projection.weight, 2.0)  # the residual units pass their input on
    fused, skip = torch.tensor([[[[0.0, 3.0]]]]), torch.tensor([[[[1.0, 4.0]]]])
    expected = torch.tensor([2.0, 6.0, 10.0, 14.0])  # 2 * (1, 3, 5, 7): the corners stay
    torch.testing.assert_close(block(fused, skip), expected.expand(1, 1, 2, 4))


def test_a_residual_unit_by_hand():
    unit = ResidualUnit(1, has_batch_norm=False)
    for convolution, weight, bias in ((unit.convolution1, 3.0, -1.0), (unit.convolution2, 5.0, 0.5)):
        nn.init.zeros_(convolution.weight)
        convolution.weight.data[..., 1, 1] = weight
        nn.init.constant_(convolution.bias, bias)
    x = torch.tensor([[[[-2.0, 0.25, 1.0]]]])
    # x + 5 relu(3 relu(x) - 1) + 0.5
    torch.testing.assert_close(unit(x), torch.tensor([[[[-1.5, 0.75, 11.5]]]]))


@pytest.mark.parametrize(
    ("family", "num_classes", "settings"),
    [
        ("dinov3_native", 1, {}),
        ("dinov2", 5, {"readout_type": "add", "tuning": "full"}),
        ("dinov2", 2, {"readout_type": "ignore", "use_batch_norm_in_fusion_residual": False, "tuning": "lora"}),
    ],
)
def test_any_image_is_segmented_and_everything_is_trained(family, num_classes, settings):
    assert_segments_any_size_and_trains("dpt", num_classes, family=family, **SMALL | settings)


def test_one_image_of_few_patches_cannot_be_normalised_over_the_batch():
    spec = spec_of(32)
    features = random_features(spec, (2, 2), batch_size=1)
    with pytest.raises(UsageError, match="model.use_batch_norm_in_fusion_residual=false"):
        make(spec, **SMALL).train()(features)
    assert make(spec, **SMALL).eval()(features).shape == (1, 3, 32, 32)
    without = make(spec, use_batch_norm_in_fusion_residual=False, **SMALL)
    assert without.train()(features).shape == (1, 3, 32, 32)
    assert make(spec, **SMALL).train()(random_features(spec, (3, 1), batch_size=1)).shape == (1, 3, 64, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"readout_type": "cls"}, r"model\.readout_type='cls' is not known; choose one of project, add, ignore"),
        ({"fusion_hidden_size": 0}, r"model\.fusion_hidden_size=0 is out of range; it must be at least 1"),
        ({"neck_hidden_sizes": [8, 8, 8]}, r"model\.neck_hidden_sizes=\[8, 8, 8\] must be 4 numbers of channels"),
        ({"neck_hidden_sizes": [8, 8, 0, 8]}, r"model\.neck_hidden_sizes=\[8, 8, 0, 8\] must be 4 numbers"),
        ({"dropout": -0.1}, r"model\.dropout=-0\.1 is out of range"),
    ],
)
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UsageError, match=message):
        DPT.Config(**settings)


@pytest.mark.parametrize("readout_type", ["project", "add"])
def test_a_backbone_without_class_token_needs_readout_ignore(readout_type):
    spec = spec_of(32, num_prefix_tokens=0)
    with pytest.raises(ValueError, match=f"model.readout_type={readout_type} needs .* class token; set it to ignore"):
        make(spec, readout_type=readout_type, **SMALL)


def test_settings_come_from_a_command_line():
    config = load_any_head_config(None, ["model.head=dpt", "model.neck_hidden_sizes=[8,8,8,8]"])
    assert config.model.neck_hidden_sizes == [8, 8, 8, 8]
    assert config.model.backbone_out_layers == "FOUR_EVEN_INTERVALS"


def test_it_is_the_classifier_that_starts_anew_for_other_classes():
    network = network_of("dpt", **SMALL)
    named = [name for name in network.state_dict() if network.is_classifier(name)]
    assert named == ["head.head.head.4.weight", "head.head.head.4.bias"]


def test_folds_of_a_model_may_differ_in_dropout_alone():
    words = ["model.head=dpt"]
    trained, wanted, other = (
        load_any_head_config(None, words + more).architecture(regions=False)
        for more in ([], ["model.dropout=0.5"], ["model.readout_type=add"])
    )
    assert architecture_differences(trained, wanted) == []
    assert len(architecture_differences(trained, other)) == 1

"""The linear head is a batch norm and a 1x1 convolution on the maps, with class tokens if wanted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import BackboneSpec
from nnunetv2.model.heads.linear import Linear
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


def make(spec: BackboneSpec, num_classes: int = 3, **settings) -> Linear:
    return Linear(Linear.Config(**settings), spec, num_classes)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("grid", [(6, 6), (5, 7)])
@pytest.mark.parametrize(("num_maps", "use_cls_token"), [(1, False), (1, True), (3, True), (4, False)])
def test_it_equals_a_norm_and_a_convolution(num_maps, use_cls_token, grid, is_training, seeded):
    spec = spec_of(32, num_maps=num_maps)
    head = with_random_statistics(make(spec, use_cls_token=use_cls_token, dropout=0)).train(is_training)
    width = 32 * num_maps * (2 if use_cls_token else 1)
    theirs = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, 3, kernel_size=1)).train(is_training)
    theirs[0].load_state_dict(head.linear.batchnorm_layer.state_dict())
    theirs[1].load_state_dict(head.linear.conv.state_dict())
    features = random_features(spec, grid)
    levels = []
    for level, prefix in zip(features.maps, features.prefix_tokens, strict=True):
        levels += [level, prefix[:, 0, :, None, None].expand(-1, -1, *grid)] if use_cls_token else [level]
    with torch.no_grad():
        torch.testing.assert_close(head(features), theirs(torch.cat(levels, dim=1)), atol=1e-5, rtol=0)
        torch.testing.assert_close(head.linear.batchnorm_layer.running_mean, theirs[0].running_mean)


@pytest.mark.parametrize(
    ("size", "num_maps", "expected"),
    [
        ("S", 1, 1_538),
        ("B", 1, 3_074),
        ("L", 1, 4_098),
        ("S", 4, 6_146),
        ("B", 4, 12_290),
        ("L", 4, 16_386),
    ],
)
def test_number_of_parameters(size, num_maps, expected):
    spec = spec_of(SPECS[size].embed_dim, num_maps=num_maps)
    assert num_parameters(Linear, spec) == expected


def test_number_of_parameters_without_norm_and_with_class_tokens():
    assert num_parameters(Linear, spec_of(384, num_maps=1), use_batchnorm=False) == 2 * 384 + 2
    assert num_parameters(Linear, spec_of(384, num_maps=1), use_cls_token=True) == 2 * 1_538 - 2


def test_the_classifier_starts_small_and_without_bias(seeded):
    conv = make(spec_of(1024, num_maps=4), 5).linear.conv
    assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert conv.weight.mean().item() == pytest.approx(0.0, abs=3e-4)
    assert not conv.bias.any()


def test_dropout_drops_whole_channels_in_training_only(seeded):
    spec = spec_of(8, num_maps=1)
    head = make(spec, use_batchnorm=False, dropout=0.5)
    head.linear.conv = nn.Identity()
    features = random_features(spec, (4, 5))
    kept = (head.train()(features) != 0).flatten(2)
    assert torch.equal(kept.all(dim=2), kept.any(dim=2))
    assert 0 < kept.all(dim=2).sum() < kept.all(dim=2).numel()
    assert torch.equal(head.eval()(features), features.maps[0])


@pytest.mark.parametrize(
    ("given", "blocks"), [(None, [3]), ([2], [2]), ("FOUR_LAST", [0, 1, 2, 3]), ([0, 1, 3], [0, 1, 3])]
)
def test_a_network_reads_the_last_block_or_any_list(given, blocks):
    network = network_of("linear", backbone_out_layers=given).eval()
    assert network.out_indices == blocks
    assert network.head.linear.in_channels == [128] * len(blocks)
    with torch.no_grad():
        assert network(torch.randn(1, 1, 40, 33)).shape == (1, 3, 40, 33)


@pytest.mark.parametrize(
    ("family", "num_classes", "settings"),
    [
        ("dinov3_native", 1, {}),
        ("dinov2", 5, {"use_cls_token": True, "backbone_out_layers": [1, 3], "tuning": "full"}),
        ("dinov2", 2, {"use_batchnorm": False, "tuning": "lora"}),
    ],
)
def test_any_image_is_segmented_and_everything_is_trained(family, num_classes, settings):
    assert_segments_any_size_and_trains("linear", num_classes, family=family, **settings)


def test_one_patch_of_one_image_cannot_be_normalised_over_the_batch():
    spec = spec_of(8, num_maps=1)
    features = random_features(spec, (1, 1), batch_size=1)
    with pytest.raises(UsageError, match="model.use_batchnorm=false"):
        make(spec).train()(features)
    assert make(spec).eval()(features).shape == (1, 3, 1, 1)
    assert make(spec, use_batchnorm=False).train()(features).shape == (1, 3, 1, 1)


def test_wrong_settings_are_rejected():
    with pytest.raises(UsageError, match=r"model\.dropout=1\.0 is out of range"):
        Linear.Config(dropout=1.0)
    with pytest.raises(ValueError, match=r"model\.use_cls_token=true needs a backbone with a class token"):
        make(spec_of(8, num_prefix_tokens=0), use_cls_token=True)
    with pytest.raises(UsageError, match=r"choose one of LAST, FOUR_EVEN_INTERVALS, FOUR_LAST, or blocks in ascending"):
        load_any_head_config(None, ["model.head=linear", "model.backbone_out_layers=[3,1]"])


def test_the_learning_rates_of_the_backbone_stay_those_of_other_heads():
    config = load_any_head_config(None, ["model.head=linear"])
    other = load_any_head_config(None, ["model.head=upernet"])
    assert config.training.lr == 1e-3
    assert config.model.backbone_out_layers == "LAST"
    for name in ("lora_lr_multiplier", "backbone_lr_multiplier"):
        rates = [settings.training.lr * getattr(settings.training, name) for settings in (config, other)]
        assert rates[0] == pytest.approx(rates[1])


def test_it_is_the_classifier_that_starts_anew_for_other_classes():
    network = network_of("linear")
    named = [name for name in network.state_dict() if network.is_classifier(name)]
    assert named == ["head.linear.conv.weight", "head.linear.conv.bias"]


def test_folds_of_a_model_may_differ_in_dropout_alone():
    words = ["model.head=linear"]
    trained, wanted, other = (
        load_any_head_config(None, words + more).architecture(regions=False)
        for more in ([], ["model.dropout=0.5"], ["model.use_cls_token=true"])
    )
    assert architecture_differences(trained, wanted) == []
    assert len(architecture_differences(trained, other)) == 1

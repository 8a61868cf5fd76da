"""The whole model: what `build_segmentation_decoder` accepts, builds and refuses."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.models import (
    BackboneLayersSet,
    FeatureDecoder,
    backbone_out_indices,
    build_segmentation_decoder,
)
from dinov3.eval.segmentation.models.heads.semantic_scores import semantic_scores
from tests.dinov3.fake_backbone import FakeBackbone
from tests.dinov3.meta_tensors import meta_tensors

SMALL = {"hidden_dim": 32, "num_classes": 3, "num_heads": 4, "dim_feedforward": 48, "num_queries": 8}


def make_model(**kwargs):
    return build_segmentation_decoder(
        FakeBackbone(), **{**SMALL, "num_decoder_layers": 3, "num_encoder_layers": 1, **kwargs}
    )


@pytest.mark.parametrize(
    ("num_blocks", "layers", "indices"),
    [
        (12, BackboneLayersSet.FOUR_EVEN_INTERVALS, [2, 5, 8, 11]),
        (24, BackboneLayersSet.FOUR_EVEN_INTERVALS, [4, 11, 17, 23]),
        (32, "FOUR_EVEN_INTERVALS", [7, 15, 23, 31]),
        (40, "FOUR_EVEN_INTERVALS", [9, 19, 29, 39]),
        (4, "FOUR_EVEN_INTERVALS", [0, 1, 2, 3]),
        (27, "FOUR_EVEN_INTERVALS", [5, 11, 17, 23]),  # not the last: models were trained so
        (12, BackboneLayersSet.FOUR_LAST, [8, 9, 10, 11]),
        (12, "LAST", [11]),
        (24, [5, 11, 17, 23], [5, 11, 17, 23]),
    ],
)
def test_backbone_layers_become_indices(num_blocks, layers, indices):
    assert backbone_out_indices(num_blocks, layers) == indices


@pytest.mark.parametrize(
    ("num_blocks", "layers", "message"),
    [
        (12, "EVEN", "'EVEN' are unknown; choose one of LAST, FOUR_LAST, FOUR_EVEN_INTERVALS"),
        (12, [2, 5, 8, 12], r"\[2, 5, 8, 12\] were given; list ascending block indices from 0 to 11"),
        (12, [5, 2, 8, 11], "list ascending"),
        (3, BackboneLayersSet.FOUR_LAST, "with 3 blocks; it needs at least 4"),
    ],
)
def test_backbone_layers_that_do_not_exist_are_refused(num_blocks, layers, message):
    with pytest.raises(ValueError, match=message):
        backbone_out_indices(num_blocks, layers)


def test_model_has_the_479_tensors_of_the_released_one():
    with meta_tensors():
        model = build_segmentation_decoder(FakeBackbone(embed_dim=4096, n_blocks=40), num_classes=150)
    assert isinstance(model, FeatureDecoder)
    names = [name for name in model.state_dict() if "backbone" not in name]
    assert len(names) == 479
    assert sum(name.startswith("segmentation_model.0.") for name in names) == 187
    assert sum(name.startswith("segmentation_model.1.") for name in names) == 292
    assert any(name.startswith("segmentation_model.0.backbone.blocks.39.") for name in model.state_dict())
    assert model.segmentation_model[0].interaction_indexes == [9, 19, 29, 39]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == pytest.approx(927.4e6, rel=1e-4)


def test_model_predicts_at_a_quarter_and_at_the_wanted_size(seeded):
    model = make_model().eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outputs = model(image)
        assert outputs["pred_masks"].shape == (1, 8, 16, 24)
        assert len(outputs["aux_outputs"]) == 3
        assert model.predict(image, rescale_to=(50, 70))["pred_masks"].shape == (1, 8, 50, 70)


@pytest.mark.parametrize("decoder_type", ["m2f", "linear"])
def test_model_names_its_backbone_and_the_sizes_it_takes(decoder_type):
    backbone = FakeBackbone(patch_size=8)
    model = build_segmentation_decoder(backbone, decoder_type=decoder_type, **{"hidden_dim": 32, "num_queries": 2})
    assert model.backbone is backbone
    assert model.size_multiple == {"m2f": 32, "linear": 8}[decoder_type]


def test_adapter_comes_in_eval_mode():
    model = make_model()
    assert not any(module.training for module in model.segmentation_model[0].modules())
    assert model.train().segmentation_model[0].spm.training


def test_images_may_have_other_than_three_channels(seeded):
    backbone = FakeBackbone()
    backbone.patch_embed.proj = torch.nn.Conv2d(5, 64, 16, 16)
    model = build_segmentation_decoder(backbone, in_channels=5, num_decoder_layers=1, num_encoder_layers=1, **SMALL)
    assert model.segmentation_model[0].spm.stem[0].weight.shape == (64, 5, 3, 3)
    assert model(torch.randn(1, 5, 64, 64))["pred_logits"].shape == (1, 8, 4)


def test_backbone_is_frozen_unless_asked_otherwise():
    def trained(**kwargs):
        adapter = make_model(**kwargs).segmentation_model[0]
        return adapter.backbone_is_trained()

    assert not trained()
    assert trained(lora_enabled=True)
    assert trained(freeze_backbone=False)


def test_autocast_dtype_runs_the_model_in_half_precision(seeded):
    model, image = make_model(), torch.randn(1, 3, 64, 64)
    assert model.eval()(image)["pred_masks"].dtype == torch.float32
    model.autocast_dtype = torch.bfloat16
    assert model(image)["pred_masks"].dtype == torch.bfloat16


def test_num_blocks_is_read_under_either_name():
    backbone = FakeBackbone()
    backbone.num_blocks = backbone.__dict__.pop("n_blocks")
    model = build_segmentation_decoder(backbone, **SMALL, num_decoder_layers=1, num_encoder_layers=1)
    assert model.segmentation_model[0].interaction_indexes == [0, 1, 2, 3]


def test_unknown_decoder_type_is_refused():
    with pytest.raises(ValueError, match="'segformer' is unknown; choose one of m2f, linear"):
        make_model(decoder_type="segformer")


@pytest.mark.slow
def test_model_learns_one_batch_by_heart(seeded):
    model = make_model(drop_path_rate=0.0).train()
    criterion = MaskClassificationLoss(3, num_points=128)
    image = torch.randn(2, 3, 64, 64)
    label_map = torch.zeros(2, 64, 64, dtype=torch.long)
    label_map[0, 8:40, 8:30], label_map[0, 40:, 40:], label_map[1, 20:50, 24:60] = 1, 2, 2
    targets = [
        {"labels": labels.unique(), "masks": torch.stack([labels == c for c in labels.unique()])}
        for labels in label_map
    ]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    history = []
    for _ in range(40):
        loss = criterion.total(criterion(model(image), targets))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.2 * history[0]
    with torch.no_grad():
        outputs = model.predict(image, rescale_to=(64, 64))
    predicted = semantic_scores(outputs["pred_logits"], outputs["pred_masks"]).argmax(dim=1)
    assert (predicted == label_map).float().mean() > 0.95


def test_a_step_is_the_same_twice(seeded):
    def step():
        torch.manual_seed(7)
        model = make_model().train()
        criterion = MaskClassificationLoss(3, num_points=64)
        masks = torch.rand(2, 64, 64) > 0.5
        targets = [{"labels": torch.tensor([0, 2]), "masks": masks}] * 2
        loss = criterion.total(criterion(model(torch.randn(2, 3, 64, 64)), targets))
        loss.backward()
        return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]

    assert_close(step(), step(), rtol=0, atol=0)

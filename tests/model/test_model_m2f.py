"""Mask2Former as a network for nnU-Net."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from nnunetv2.errors import UsageError
from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.model.query_network import dense_logits
from nnunetv2.model.vit_network import pad_to_multiple
from nnunetv2.training.loss.mask_targets import mask_targets
from tests.model.model_contract import ModelContract

SMALL = {
    "backbone_size": "tiny",
    "tuning": "full",
    "hidden_dim": 64,
    "num_heads": 2,
    "dim_feedforward": 32,
    "num_queries": 5,
    "num_encoder_layers": 1,
    "num_decoder_layers": 3,
    "drop_path_rate": 0.0,
    "gradient_checkpointing": False,
}
LORA = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": ["qkv", "proj"]}


def small_model(channels: int = 1, classes: int = 3, **changes: object) -> M2FSegmentationModel:
    torch.manual_seed(0)
    return M2FSegmentationModel(channels, classes, **(SMALL | changes))


def all_predictions(network: nn.Module, image: Tensor) -> Tensor:
    """A number that depends on every prediction of the mask transformer."""
    queries = network(image, return_queries=True)
    outputs = [queries, *queries["aux_outputs"]]
    terms = [output[key] * torch.randn_like(output[key]) for output in outputs for key in ("pred_logits", "pred_masks")]
    return sum(term.mean() for term in terms)


class TestM2FContract(ModelContract):
    network_class = M2FSegmentationModel
    arch_kwargs = SMALL

    def loss(self, network: nn.Module, image: Tensor) -> Tensor:
        return all_predictions(network, image)


def test_queries_have_the_shapes_that_the_loss_takes():
    queries = small_model()(torch.randn(2, 1, 40, 64), return_queries=True)
    assert queries["pred_logits"].shape == (2, 5, 4)
    assert queries["pred_masks"].shape == (2, 5, 16, 16)  # 40 is padded to 64
    assert len(queries["aux_outputs"]) == 3


def test_padding_is_below_and_on_the_right():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 4, 4)
    torch.testing.assert_close(padded[..., :2, :3], image)
    assert padded.sum() == image.sum()


def certain_queries(classes: list[int], masks: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Queries that are sure of their class and mask; masks (Q, h, w) of 0 and 1, at a quarter of the image."""
    logits = torch.full((1, len(classes), num_classes + 1), -40.0)
    logits[0, range(len(classes)), classes] = 40.0
    return {"pred_logits": logits, "pred_masks": (80.0 * masks - 40.0)[None]}


def test_softmax_of_the_logits_of_labels_is_the_share_of_the_scores():
    # Two queries of class 1 cover everything with probability 1/2, one of class 0 with 1/4: scores 1 and 1/4.
    queries = certain_queries([1, 1, 0], torch.zeros(3, 1, 1), num_classes=3)
    queries["pred_masks"] = torch.logit(torch.tensor([0.5, 0.5, 0.25])).view(1, 3, 1, 1)
    logits = dense_logits(queries, (4, 4), 4, regions=False)
    assert logits.shape == (1, 3, 4, 4)
    expected = torch.tensor([0.2, 0.8, 0.0])[:, None, None].expand(-1, 4, 4)
    torch.testing.assert_close(logits.softmax(1)[0], expected, atol=1e-5, rtol=0)


def test_sigmoid_of_the_logits_of_regions_is_the_score():
    queries = certain_queries([0, 1], torch.zeros(2, 1, 1), num_classes=2)
    queries["pred_masks"] = torch.logit(torch.tensor([0.3, 0.9])).view(1, 2, 1, 1)
    logits = dense_logits(queries, (4, 4), 4, regions=True)
    torch.testing.assert_close(logits.sigmoid()[0, :, 0, 0], torch.tensor([0.3, 0.9]), atol=1e-5, rtol=0)


def test_regions_may_overlap_and_labels_may_not():
    everywhere = torch.ones(2, 2, 2)
    queries = certain_queries([0, 1], everywhere, num_classes=2)
    assert (dense_logits(queries, (8, 8), 4, regions=True).sigmoid() > 0.5).all()
    torch.testing.assert_close(
        dense_logits(queries, (8, 8), 4, regions=False).softmax(1), torch.full((1, 2, 8, 8), 0.5)
    )


@pytest.mark.parametrize("regions", [True, False])
def test_logits_survive_half_precision_also_where_no_query_is_or_many_are(regions):
    masks = torch.stack([torch.ones(2, 2)] * 4 + [torch.zeros(2, 2)])
    queries = certain_queries([0, 0, 0, 0, 1], masks, num_classes=3)
    logits = dense_logits(queries, (8, 8), 4, regions=regions)
    ten_windows = 10 * logits.half()  # nnU-Net sums windows with weights up to 10 in half precision
    assert ten_windows.isfinite().all()
    assert (ten_windows[:, 0] > ten_windows[:, 1]).all()


def test_logits_of_half_precision_queries_are_single_precision():
    queries = small_model().eval()(torch.randn(1, 1, 32, 32), return_queries=True)
    lowered = {key: queries[key].bfloat16() for key in ("pred_logits", "pred_masks")}
    assert dense_logits(lowered, (32, 32), 4, regions=False).dtype == torch.float32


def test_logits_under_autocast_stay_near_those_without():
    network, image = small_model().eval(), torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = network(image).softmax(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.softmax(1), expected, atol=0.1, rtol=0)


def test_masks_beyond_half_precision_are_predicted():
    network, image = small_model().eval(), torch.randn(1, 1, 32, 32)
    head = network.head.decoder.segmentation_model[1]
    with torch.no_grad():
        for layer in (head.predictor.mask_embed.layers[-1], head.pixel_decoder.mask_feature):
            layer.weight.mul_(1000)
        assert network(image, return_queries=True)["pred_masks"].abs().max() > torch.finfo(torch.float16).max
        with torch.autocast("cpu", dtype=network.autocast_dtype):
            assert network(image, return_queries=True)["pred_masks"].isfinite().all()


@pytest.mark.parametrize(
    ("tuning", "lora", "trained"),
    [
        ("frozen", None, lambda name: False),
        ("lora", LORA, lambda name: ".lora_" in name),
        ("full", None, lambda name: True),
    ],
)
def test_tuning_decides_which_backbone_parameters_are_trained(tuning, lora, trained):
    network = small_model(tuning=tuning, lora=lora).train()
    all_predictions(network, torch.randn(2, 1, 64, 64)).backward()
    backbone = dict(network.backbone.named_parameters())
    assert {name for name, p in backbone.items() if p.grad is not None} == {name for name in backbone if trained(name)}
    assert all(p.grad is not None for name, p in network.named_parameters() if ".backbone." not in name)


def test_a_frozen_backbone_stays_in_eval_mode_while_the_head_trains():
    network = small_model(tuning="frozen").eval().train()
    assert not any(module.training for module in network.backbone.modules())
    assert network.head.decoder.segmentation_model[1].training


def test_lora_in_train_mode_drops_out():
    network = small_model(tuning="lora", lora=LORA | {"lora_dropout": 0.5}).train()
    dropouts = [module for module in network.backbone.modules() if isinstance(module, nn.Dropout) and module.p == 0.5]
    assert dropouts
    assert all(module.training for module in dropouts)


@pytest.mark.parametrize("rule", ["repeat", "conv1x1", "inflate"])
def test_five_channels_all_matter(rule):
    network = small_model(channels=5, channel_adaptation=rule).eval()
    image = torch.randn(1, 5, 32, 32, requires_grad=True)
    network(image).square().sum().backward()
    assert (image.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 2}, "model.num_queries=2 is below the number of classes, 3"),
        ({"tuning": "some"}, "model.tuning='some' is not known"),
        ({"tuning": "lora", "lora": LORA | {"target_modules": ["query"]}}, "LoRA was asked for 'query'"),
        ({"hidden_dim": 72, "num_heads": 2}, "model.hidden_dim=72 must be a multiple of 32 .* the next one is 96"),
        ({"backbone_size": "gigantic"}, "dinov3 has tiny, small"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        small_model(**changes)


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(seeded):
    """Two squares of brightness 1 and 2 on a dark ground, with noise."""
    labels = torch.zeros(2, 1, 64, 64, dtype=torch.int16)
    labels[0, 0, 8:30, 8:40] = 1
    labels[1, 0, 30:60, 20:50] = 2
    image = labels.float() + 0.1 * torch.randn(2, 1, 64, 64)
    network = small_model().train()
    loss = MaskClassificationLoss(3, num_points=500)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    targets, valid = mask_targets(labels, 3, regions=False, ignore_label=None)
    for _ in range(60):
        optimizer.zero_grad()
        loss.total(loss(network(image, return_queries=True), targets, valid)).backward()
        optimizer.step()
    with torch.no_grad():
        prediction = network(image).argmax(1)
    for label in (1, 2):
        found, true = prediction == label, labels[:, 0] == label
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9

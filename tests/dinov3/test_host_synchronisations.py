"""How often one step makes the host wait: once in the loss, for the matching on the host, and never in the model."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.hub.backbones import dinov3_vits16
from tests.dinov3.host_reads import host_reads

K, SIZE = 3, 64


def make_model(**kwargs):
    settings = {"hidden_dim": 32, "num_heads": 4, "dim_feedforward": 48, "num_queries": 5, "num_decoder_layers": 9}
    backbone = dinov3_vits16(pretrained=False, embed_dim=64, depth=4, num_heads=1)
    return build_segmentation_decoder(backbone, num_classes=K, **settings, **kwargs).train()


def make_targets(counts=(2, 3)):
    return [{"labels": torch.arange(n) % K, "masks": torch.rand(n, SIZE, SIZE) > 0.5} for n in counts]


@pytest.mark.parametrize(("with_cp", "freeze_backbone"), [(False, True), (True, True), (False, False)])
def test_model_never_waits_forwards_or_backwards(seeded, with_cp, freeze_backbone):
    model, image = make_model(with_cp=with_cp, freeze_backbone=freeze_backbone), torch.randn(2, 3, SIZE, SIZE)
    for _ in range(2):  # in the first pass, constants that depend on the size are made
        with host_reads() as reads:
            outputs = model(image)
            sum(p["pred_masks"].mean() + p["pred_logits"].mean() for p in (outputs, *outputs["aux_outputs"])).backward()
        assert not reads


@pytest.mark.parametrize("with_generators", [False, True])
@pytest.mark.parametrize("with_valid", [False, True])
def test_loss_waits_once_for_the_costs_of_all_images_and_predictions(seeded, with_valid, with_generators):
    outputs, criterion = make_model()(torch.randn(2, 3, SIZE, SIZE)), MaskClassificationLoss(K, num_points=64)
    valid = torch.rand(2, SIZE, SIZE) > 0.2 if with_valid else None
    generators = [torch.Generator() for _ in range(2)] if with_generators else None
    with host_reads() as reads:
        criterion.total(criterion(outputs, make_targets(), valid, generators)).backward()
    assert reads == {"cpu": 1, "numpy": 1}  # the costs: one copy, then a view of it


@pytest.mark.parametrize("with_valid", [False, True])
def test_loss_matched_on_the_device_never_waits(seeded, with_valid):
    outputs = make_model()(torch.randn(2, 3, SIZE, SIZE))
    criterion = MaskClassificationLoss(K, num_points=64, match_on_device=True)
    valid = torch.rand(2, SIZE, SIZE) > 0.2 if with_valid else None
    with host_reads() as reads:
        criterion.total(criterion(outputs, make_targets(), valid)).backward()
    assert not reads


def test_loss_without_targets_does_not_wait(seeded):
    outputs, criterion = make_model()(torch.randn(2, 3, SIZE, SIZE)), MaskClassificationLoss(K, num_points=64)
    with host_reads() as reads:
        criterion.total(criterion(outputs, make_targets((0, 0)))).backward()
    assert not reads


def test_counter_sees_what_makes_the_host_wait():
    numbers = torch.arange(4.0, requires_grad=True)

    def masked(value):
        return value[value.detach() > 1].sum().backward()

    waits = {
        "item": lambda value: value[0].item(),
        "bool": lambda value: bool(value[0] > 1),
        "tolist": lambda value: value.tolist(),
        "cpu": lambda value: value.to("cpu"),
        "nonzero": lambda value: torch.nonzero(value),
        "mask": masked,
        "repeat": lambda value: value.repeat_interleave(torch.tensor([1, 2, 0, 1])),
        "format": lambda value: f"{value[0].detach():.2f}",
    }
    counts = Counter()
    for name, wait in waits.items():
        with host_reads() as reads:
            wait(numbers)
        counts[name] = min(1, reads.total())
    assert counts == dict.fromkeys(waits, 1)
    with host_reads() as reads:
        numbers[torch.tensor([0, 2])].sum().backward()
        torch.from_numpy(numbers.detach().clone().numpy()).to("cpu", non_blocking=True)
    assert reads == {"numpy": 1}

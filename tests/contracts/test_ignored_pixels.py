"""Pixels with the ignore label teach nothing, in every model, for labels and for regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.contracts.cases import IGNORED, MODELS, Combination, make_batch

Target = Tensor | list[Tensor]


def started(model: str, labels: str, folders: Path) -> tuple[Any, dict[str, Any]]:
    """A trainer in training mode, and a batch of which a quarter is ignored."""
    combination = Combination(model, "full", 1, labels)
    trainer = combination.trainer(folders)
    trainer.initialize()
    trainer.network.train()
    return trainer, make_batch(trainer, combination)


def ignored_pixels(target: Tensor, has_regions: bool) -> Tensor:
    """(B, 1, H, W) bool."""
    return target[:, -1:].bool() if has_regions else target == IGNORED


def reach_of(valid: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, h, w) bool: where a map of this size takes part when the map is read at valid pixels, between its cells.

    Pixels beyond `valid` (B, 1, H, W), below and on the right, are padding.
    """
    stride = -(-valid.shape[-2] // size[0])
    padded = F.pad(valid.float(), (0, size[1] * stride - valid.shape[-1], 0, size[0] * stride - valid.shape[-2]))
    return F.max_pool2d(F.max_pool2d(padded, stride), kernel_size=3, stride=1, padding=1).bool()


def supervised_maps(output: Any, targets: list[Tensor], has_regions: bool) -> list[tuple[Tensor, Tensor]]:
    """Each map that the loss is computed of, with the part of it that may have a gradient."""
    valid = [~ignored_pixels(target, has_regions) for target in targets]
    if isinstance(output, dict):
        masks = [prediction["pred_masks"] for prediction in (output, *output["aux_outputs"])]
        return [(mask, reach_of(valid[0], mask.shape[-2:])) for mask in masks]
    outputs = output if isinstance(output, list) else [output]
    return list(zip(outputs, valid, strict=True))


@pytest.mark.parametrize("labels", ["ignore", "regions_ignore"])
@pytest.mark.parametrize("model", MODELS)
def test_ignored_pixels_have_no_gradient(model: str, labels: str, folders: Path, seeded: int) -> None:
    trainer, batch = started(model, labels, folders)
    targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    loss, output = trainer.forward_loss(batch["data"], batch["target"])
    maps = supervised_maps(output, targets, trainer.label_manager.has_regions)
    gradients = torch.autograd.grad(loss, [each for each, _ in maps], allow_unused=True)
    seen = 0
    for (_, may_have), gradient in zip(maps, gradients, strict=True):
        assert 0 < may_have.float().mean() < 1
        if gradient is not None:  # the coarsest output of the U-Net has no part in the loss
            assert not gradient.masked_select(~may_have).any()
            seen += bool(gradient.masked_select(may_have).any())
    assert seen >= max(1, len(maps) - 1)


@pytest.mark.parametrize("model", MODELS)
def test_regions_under_ignored_pixels_do_not_matter(model: str, folders: Path, seeded: int) -> None:
    trainer, batch = started(model, "regions_ignore", folders)

    def loss_with(target: Target) -> float:
        torch.manual_seed(0)
        return trainer.forward_loss(batch["data"], target)[0].item()

    def exchanged(target: Target, where_ignored: bool) -> Target:
        """The regions become their complement, at the ignored pixels or at all others."""
        if isinstance(target, list):
            return [exchanged(each, where_ignored) for each in target]
        regions, ignored = target[:, :-1].bool(), target[:, -1:].bool()
        return torch.cat((regions ^ (ignored == where_ignored), ignored), dim=1).to(target.dtype)

    expected = loss_with(batch["target"])
    assert loss_with(exchanged(batch["target"], where_ignored=True)) == expected
    assert loss_with(exchanged(batch["target"], where_ignored=False)) != expected

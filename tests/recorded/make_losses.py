"""Values and gradients of the losses on fixed inputs, of whichever nnunetv2 the interpreter finds.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_losses.py tests/recorded/losses.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

SHAPE = (2, 3, 5, 4)  # batch, classes, spatial
IGNORE = 3


def wave(shape: tuple[int, ...], frequency: float) -> torch.Tensor:
    """Numbers in [-2, 2] that are the same on every machine and version."""
    count = int(torch.tensor(shape).prod())
    return 2 * torch.sin(frequency * torch.arange(count, dtype=torch.float64)).float().reshape(shape)


def logits() -> torch.Tensor:
    return wave(SHAPE, 1.7).requires_grad_()


def labels(highest: int = 2) -> torch.Tensor:
    spread = (wave((SHAPE[0], 1, *SHAPE[2:]), 0.9) + 2) / 4
    return (spread * (highest + 1)).long().clamp(0, highest)


def regions(channels: int = 3) -> torch.Tensor:
    return wave((SHAPE[0], channels, *SHAPE[2:]), 2.3) > 0.4


def mask() -> torch.Tensor:
    return wave((SHAPE[0], 1, *SHAPE[2:]), 3.1) > -0.5


def gradient_of(loss: torch.Tensor, source: torch.Tensor) -> list[float]:
    (gradient,) = torch.autograd.grad(loss, source)
    flat = gradient.double().flatten()
    weights = torch.arange(len(flat), dtype=torch.float64)
    return [float(flat.abs().sum()), float((flat * weights).sum()), *map(float, flat[[0, 7, 31, 119]])]


def dice_results() -> dict[str, Any]:
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss
    from nnunetv2.utilities.helpers import softmax_helper_dim1

    results = {}
    for loss_class in (SoftDiceLoss, MemoryEfficientSoftDiceLoss):
        for batch_dice in (False, True):
            for do_bg in (False, True):
                for masked in (False, True):
                    loss = loss_class(softmax_helper_dim1, batch_dice, do_bg, smooth=1e-5, ddp=False)
                    source = logits()
                    value = loss(source, labels(), loss_mask=mask() if masked else None)
                    name = f"{loss_class.__name__} batch={batch_dice} background={do_bg} masked={masked}"
                    results[name] = [float(value.detach()), *gradient_of(value, source)]
        source = logits()
        value = loss_class(torch.sigmoid, False, True, smooth=1.0, ddp=False)(source, regions())
        results[f"{loss_class.__name__} regions"] = [float(value.detach()), *gradient_of(value, source)]
    source = logits()
    value = SoftDiceLoss(softmax_helper_dim1, ddp=False, clip_tp=8.0)(source, labels())
    results["SoftDiceLoss clipped"] = [float(value.detach()), *gradient_of(value, source)]
    return results


def count_results() -> dict[str, Any]:
    from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

    probabilities = torch.softmax(logits().detach(), 1)
    settings = {
        "counts": {},
        "counts over batch": {"axes": [0, 2, 3]},
        "counts masked": {"mask": mask().float()},
        "counts squared": {"square": True},
    }
    results = {
        name: [
            float(entry) for count in get_tp_fp_fn_tn(probabilities, labels(), **kwargs) for entry in count.flatten()
        ]
        for name, kwargs in settings.items()
    }
    unsummed = get_tp_fp_fn_tn(probabilities, labels()[:, 0], axes=())
    results["counts unsummed"] = [float((count * wave(SHAPE, 0.3)).sum()) for count in unsummed]
    return results


def compound_results() -> dict[str, Any]:
    from nnunetv2.training.loss import compound_losses as c
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss

    def dice(**changes: Any) -> dict[str, Any]:
        return {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False, **changes}

    efficient = {"dice_class": MemoryEfficientSoftDiceLoss}
    with_ignored = labels(IGNORE)
    table = {
        "cross entropy": (RobustCrossEntropyLoss(), labels().float()),
        "cross entropy without channel": (RobustCrossEntropyLoss(ignore_index=2), labels()[:, 0]),
        "top 10 percent": (TopKLoss(k=10), labels()),
        "top 30 percent weighted": (TopKLoss(torch.tensor([0.5, 1.0, 2.0]), k=30, label_smoothing=0.1), labels()),
        "dice and ce": (c.DC_and_CE_loss(dice(), {}, **efficient), labels()),
        "dice and ce, plain dice": (c.DC_and_CE_loss(dice(batch_dice=False), {}, 0.3, 2), labels()),
        "dice and ce, ignore": (c.DC_and_CE_loss(dice(), {}, ignore_label=IGNORE, **efficient), with_ignored),
        "dice and ce, all ignored": (
            c.DC_and_CE_loss(dice(), {}, ignore_label=IGNORE, **efficient),
            torch.full_like(with_ignored, IGNORE),
        ),
        "ce alone, ignore": (c.DC_and_CE_loss(dice(), {}, 1, 0, IGNORE), with_ignored),
        "dice and bce": (c.DC_and_BCE_loss({}, dice(do_bg=True)), regions()),
        "dice and bce, float target": (c.DC_and_BCE_loss({}, dice(batch_dice=False), 2, 0.5), regions().float()),
        "dice and bce, ignore": (c.DC_and_BCE_loss({}, dice(do_bg=True), use_ignore_label=True), regions(4)),
        "dice and topk": (c.DC_and_topk_loss(dice(), {"k": 20}), labels()),
        "dice and topk, ignore": (c.DC_and_topk_loss(dice(), {"k": 20}, 1, 1, IGNORE), with_ignored),
    }
    results = {}
    for name, (loss, target) in table.items():
        source = logits()
        value = loss(source, target)
        results[name] = [float(value.detach()), *gradient_of(value, source)]
    return results


def deep_supervision_result() -> list[float]:
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

    loss = DeepSupervisionWrapper(DC_and_CE_loss({"ddp": False}, {}), [4 / 7, 2 / 7, 1 / 7, 0])
    source = logits()
    outputs = [source, source[:, :, ::2], source[:, :, ::2, ::2], source[:, :, :1, :1]]
    targets = [labels(), labels()[:, :, ::2], labels()[:, :, ::2, ::2], labels()[:, :, :1, :1]]
    value = loss(outputs, targets)
    return [float(value.detach()), *gradient_of(value, source)]


def compute() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {**dice_results(), **count_results(), **compound_results(), "deep supervision": deep_supervision_result()}


if __name__ == "__main__":
    results = {name: [float(f"{entry:.8g}") for entry in values] for name, values in compute().items()}
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in results.items()]
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

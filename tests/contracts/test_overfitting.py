"""Every model, however it is tuned and whatever the labels, learns one batch by heart within a few steps.

The number of channels is not multiplied with the rest: it goes round from one combination to the next, as which
channels there are matters to the first layer alone, and the contract of ten steps sees all of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, product
from pathlib import Path

import pytest
import torch

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.validation.online_metrics import mean_of_defined, pseudo_dice
from tests.contracts.cases import CHANNEL_RULES, MODELS, TRANSFORMERS, TUNINGS, Combination, label_maps, make_batch

WANTED_DICE = 0.95
SIZE = (64, 64)
# About twice what the slowest of a model's combinations took, over several seeds.
MOST_STEPS = {
    "unet": 200,
    "upernet": 40,
    "segformer": 300,
    "m2f": 40,
    "eomt": 200,
    "linear": 600,
    "dpt": 160,
    "unetr": 160,
    "primus": 500,
    "primus_multiscale": 400,
    "pmt": 40,
    "fapm": 200,
    "segdino": 300,
}
# A linear classifier of frozen random features needs all the capacity that there is.
OWN_SETTINGS = {"linear": {"input_scale": 2, "dropout": 0.0, "backbone_out_layers": "FOUR_LAST"}}
STEPS_BETWEEN_LOOKS = 10
# A constant learning rate for the transformers. The U-Net has no such settings and takes its usual ones.
TRAINING = {
    "lr": 1e-3,
    "gradient_clip": 1.0,
    "warmup_iters": 0,
    "num_epochs": 1,
    "num_iterations_per_epoch": 10000,
    "patch_size": list(SIZE),
}
QUICK = {("unet", "full", "labels")}


def combinations() -> list:
    models = (("unet", "full"), *product(TRANSFORMERS, TUNINGS))
    ways = product(models, ("labels", "regions", "ignore"))
    result = []
    for channels, ((model, tuning), labels) in zip(cycle(CHANNEL_RULES), ways, strict=False):
        combination = Combination(model, tuning, channels, labels)
        marks = () if (model, tuning, labels) in QUICK else pytest.mark.slow
        result.append(pytest.param(combination, id=str(combination), marks=marks))
    return result


def mean_dice(trainer: nnUNetTrainer, batch: dict) -> float:
    """Of the foreground classes or regions over the pixels that are not ignored, as validation counts them."""
    trainer.network.eval()
    with torch.no_grad():
        counts = trainer.validation_step(batch)
    return mean_of_defined(pseudo_dice(counts["tp_hard"], counts["fp_hard"], counts["fn_hard"]))


@pytest.mark.parametrize("combination", combinations())
def test_one_batch_is_learned_by_heart(
    combination: Combination, folders: Path, seeded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = MODELS[combination.model].settings
    model = sections.get("model", {}) | OWN_SETTINGS.get(combination.model, {})
    monkeypatch.setitem(
        MODELS, combination.model, replace(MODELS[combination.model], settings=sections | {"model": model})
    )
    trainer = combination.trainer(folders, **TRAINING)
    trainer.initialize()
    batch = make_batch(trainer, combination, label_maps(combination, SIZE))
    history = []
    for _ in range(MOST_STEPS[combination.model] // STEPS_BETWEEN_LOOKS):
        trainer.network.train()
        for _ in range(STEPS_BETWEEN_LOOKS):
            trainer.train_step(batch)
        history.append(mean_dice(trainer, batch))
        if history[-1] > WANTED_DICE:
            break
    assert history[-1] > WANTED_DICE, f"Dice after every {STEPS_BETWEEN_LOOKS} steps: {history}"

"""Every model trains and validates on CUDA, and how often it makes the host wait meanwhile.

While the host waits, the device runs dry. The numbers of waits are budgets: a change that
needs more has to give its reason here.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nnunetv2.model.head_config import head_config_class
from tests.contracts.cases import CHANNEL_RULES, HEADS, LABELS, MODELS, TUNINGS, Combination
from tests.pretend_cuda.training import train

PRECISIONS = ("fp16", "bf16", "fp32")
QUERY_MODELS = {"m2f", "eomt", *(head for head in HEADS if head_config_class(head).kind == "queries")}
WAITS_FOR_COSTS = 1  # queries are matched with masks on the host
WAITS_FOR_COUNTS = 1  # of a validation step
STAGED = 1  # small copies per step that the driver stages: the progress of annealed masks
QUICK = ("unet", "segformer", "eomt")


class Case(NamedTuple):
    combination: Combination
    precision: str

    def __str__(self) -> str:
        return f"{self.combination}-{self.precision}"

    @property
    def factors(self) -> tuple[str, str, str]:
        return self.combination.tuning, self.combination.labels, self.precision


def covering() -> list[Case]:
    """Every model with every tuning and precision; over the models, each pair of values of any two factors."""
    cases = []
    for (i, model), (j, tuning) in product(enumerate(MODELS), enumerate(TUNINGS)):
        labels, channels = tuple(LABELS)[(i - j) % len(LABELS)], tuple(CHANNEL_RULES)[(i + j) % len(CHANNEL_RULES)]
        combination = Combination(model, "full" if model == "unet" else tuning, channels, labels)
        cases.append(Case(combination, PRECISIONS[(i + j) % len(PRECISIONS)]))
    return cases


def parameters() -> list[Any]:
    quick = {model: next(case for case in covering() if case.combination.model == model) for model in QUICK}
    return [
        pytest.param(case, id=str(case), marks=() if case in quick.values() else pytest.mark.slow)
        for case in covering()
    ]


def test_every_pair_of_tuning_labels_and_precision_occurs() -> None:
    values = (TUNINGS, tuple(LABELS), PRECISIONS)
    for a, b in combinations(range(len(values)), 2):
        seen = {(case.factors[a], case.factors[b]) for case in covering()}
        assert seen == set(product(values[a], values[b]))


@pytest.mark.parametrize("case", parameters())
def test_steps_on_cuda(case: Case, cuda_process: ProcessPoolExecutor, folder: Path) -> None:
    steps = cuda_process.submit(train, case.combination, case.precision, folder).result()
    assert all(map(math.isfinite, [*steps.losses, steps.validation["loss"]]))
    assert all(count >= 0 for name, counts in steps.validation.items() if name != "loss" for count in counts)
    for_costs = WAITS_FOR_COSTS if case.combination.model in QUERY_MODELS else 0
    assert len(steps.waits) <= for_costs, steps.waits
    assert len(steps.validation_waits) <= for_costs + WAITS_FOR_COUNTS, steps.validation_waits
    assert len(steps.staged) <= STAGED, steps.staged
    # The loss of a step is read when the device has the next one before it.
    assert len(steps.late_reads) == len(steps.losses) - 1
    assert min(steps.late_reads) > steps.launches / 2


@pytest.mark.parametrize("model", ["m2f", "eomt"])
def test_matching_on_the_device_needs_no_wait(model: str, cuda_process: ProcessPoolExecutor, folder: Path) -> None:
    combination = Combination(model, "lora", next(iter(CHANNEL_RULES)), "labels")
    steps = cuda_process.submit(train, combination, "bf16", folder, {"match_on_device": True}).result()
    assert steps.waits == []
    assert len(steps.validation_waits) <= WAITS_FOR_COUNTS, steps.validation_waits
    assert all(map(math.isfinite, steps.losses))

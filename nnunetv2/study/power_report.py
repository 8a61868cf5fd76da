"""What a planned study can show, and how many cases and seeds a difference takes; from the variances of a pilot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.results import MIN_SEEDS
from nnunetv2.comparison.statistics.power import (
    MOST_CASES,
    VarianceParts,
    num_cases_for,
    parts_of_pilot,
    power,
    smallest_difference,
)
from nnunetv2.run.model_info_report import aligned
from nnunetv2.study.methods import validated_cases
from nnunetv2.study.pilot import Pilot, read_pilot
from nnunetv2.study.run_study import Study
from nnunetv2.utilities.message_parts import counted

TARGETS = (0.8, 0.9)
_FRACTIONS, _LENGTHS = (0.01, 0.02, 0.05), (0.5, 1.0, 2.0)  # differences, of metrics without and with a unit
_SEEDS = (3, 5, 10, 20)
_COVERAGE = 0.8  # of the one-sided interval of the variance between trainings
_NEVER = "never"


@dataclass(frozen=True)
class Plan:
    """Size of a study and of its tests."""

    num_cases: int
    num_seeds: int
    num_methods: int
    num_pairs: int
    alpha: float
    """family-wise error rate"""

    @property
    def level(self) -> float:
        """Level that a pair has to reach if no other pair differs: Holm's first step."""
        return self.alpha / self.num_pairs


def described(study: Study, pilot_folder: Path | None) -> str:
    """Format the power of a study.

    Args:
        pilot_folder: report of a pilot; None selects that of the study itself.

    Raises:
        UsageError: there is no pilot, or it is too small; see `read_pilot`.
    """
    metric = study.config.compare.metrics[0]
    pilot = read_pilot(study.folder if pilot_folder is None else pilot_folder, metric)
    num_methods = max(2, len(study.methods))
    num_pairs = num_methods - 1 if study.config.compare.baseline else math.comb(num_methods, 2)
    num_cases = len(validated_cases(study.config, study.dataset))
    plan = Plan(num_cases, len(study.config.seeds), num_methods, num_pairs, study.config.compare.alpha)
    return power_text(metric, pilot, plan)


def power_text(metric: str, pilot: Pilot, plan: Plan) -> str:
    """Format the power of a plan."""
    parts = parts_of_pilot(list(pilot.methods.values()))
    lines = [
        _of_pilot(metric, pilot, parts),
        "",
        *_of_plan(metric, plan, parts),
        "",
        *_needed_cases(metric, plan, parts),
    ]
    return "\n".join([*lines, "", *_foot(plan), ""])


def _of_pilot(metric: str, pilot: Pilot, parts: VarianceParts) -> str:
    numbers = ", ".join(f"{len(scores)} of {method}" for method, scores in pilot.methods.items())
    num_cases = next(iter(pilot.methods.values())).shape[1]
    return (
        f"Standard deviations of {metric} in the pilot {pilot.folder} (trainings: {numbers}; {num_cases} cases):\n"
        f"  between trainings of a method     {math.sqrt(parts.trainings):.4f} ({parts.num_free} degrees of freedom)\n"
        f"  between cases, of the difference  {math.sqrt(parts.interaction):.4f}\n"
        f"  of a single score, the rest       {math.sqrt(parts.residual):.4f}"
    )


def _of_plan(metric: str, plan: Plan, parts: VarianceParts) -> list[str]:
    sizes = (counted(plan.num_cases, "case"), counted(plan.num_seeds, "seed"), counted(plan.num_methods, "model"))
    what = f"{', '.join(sizes)} ({counted(plan.num_pairs, 'pair')})"
    if plan.num_seeds < MIN_SEEDS:
        return [f"The study ({what}) cannot show a difference between methods: that takes at least {MIN_SEEDS} seeds."]
    targets = [f"{target:.0%}" for target in TARGETS]
    rows = [("smallest difference that is shown", *(f"with {target}" for target in targets))]
    variants = (
        ("the study as planned", parts, plan.num_cases, plan.num_seeds),
        (
            f"if trainings differ as much as the pilot allows ({_COVERAGE:.0%})",
            _upper(parts),
            plan.num_cases,
            plan.num_seeds,
        ),
        (f"with {_SEEDS[-1]} seeds", parts, plan.num_cases, _SEEDS[-1]),
        ("with any number of cases", parts, MOST_CASES, plan.num_seeds),
    )
    for name, assumed, num_cases, num_seeds in variants:
        found = [smallest_difference(assumed, num_cases, num_seeds, target, plan.level) for target in TARGETS]
        rows.append((name, *(f"{each:.4f}" for each in found)))
    chances = [
        f"{difference:g} with {power(parts, plan.num_cases, plan.num_seeds, difference, plan.level):.0%}"
        for difference in _differences(metric)
    ]
    return [
        f"The study: {what}",
        "",
        *aligned(rows).splitlines(),
        "",
        f"It shows a difference of {', '.join(chances)}.",
    ]


def _upper(parts: VarianceParts) -> VarianceParts:
    return parts.with_upper_trainings(_COVERAGE)


def _needed_cases(metric: str, plan: Plan, parts: VarianceParts) -> list[str]:
    heads = [f"{difference:g} ({target:.0%})" for difference in _differences(metric) for target in TARGETS]
    rows = [("cases needed for", *heads)]
    for num_seeds in sorted({*_SEEDS, max(plan.num_seeds, MIN_SEEDS)}):
        numbers = [
            num_cases_for(parts, num_seeds, difference, target, plan.level)
            for difference in _differences(metric)
            for target in TARGETS
        ]
        rows.append((f"{num_seeds} seeds", *(_NEVER if each is None else str(each) for each in numbers)))
    return aligned(rows).splitlines()


def _differences(metric: str) -> tuple[float, ...]:
    return _LENGTHS if METRICS[metric].unit else _FRACTIONS


def _foot(plan: Plan) -> list[str]:
    return [
        f"Of the test of methods, for one pair at the level {plan.level:.2g} ({plan.alpha:g} over "
        f"{counted(plan.num_pairs, 'pair')}, Holm's first step).",
        f"{_NEVER}: not with {MOST_CASES} cases; more seeds are needed. Scores are taken to be normal, and new cases "
        "to be like those of the pilot.",
    ]

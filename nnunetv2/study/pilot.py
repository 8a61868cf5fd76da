"""Scores of a pilot, from the report of a finished comparison."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dinov3.utils.atomic_files import read_json
from nnunetv2.comparison.statistics.trainings import DECIMALS
from nnunetv2.errors import DataError, UsageError

_SCORES, _RESULTS = "per_case.csv", "comparison.json"


@dataclass(frozen=True, eq=False)
class Pilot:
    """Scores in one metric, each the mean over the classes of a case."""

    folder: Path
    methods: dict[str, np.ndarray]
    """(S, N) scores of the distinct trainings of each method on the same N cases"""


def read_pilot(folder: Path, metric: str) -> Pilot:
    """Read the scores of a report, in the folder of a report or of a study.

    Raises:
        UsageError: there is no report, it lacks the metric, or has too few methods, trainings or cases.
        DataError: a file of the report is damaged.
    """
    found = next((each for each in (folder, folder / "comparison") if (each / _SCORES).is_file()), None)
    if found is None:
        raise UsageError(
            f"--power: there is no {_SCORES} in {folder}; give the report of a pilot (the folder that nnUNetv2_compare "
            "or a study wrote)"
        )
    classes = read_json(found / _RESULTS).get("averaged_classes") if (found / _RESULTS).is_file() else None
    methods = _distinct(_means(found / _SCORES, metric, classes))
    _require_parts(found, methods, metric)
    return Pilot(found, methods)


def _means(path: Path, metric: str, classes: list[str] | None) -> dict[str, dict[str, dict[str, float]]]:
    """Mean over the classes that count, by method, run and case."""
    values: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    metrics = set()
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                metrics.add(row["metric"])
                is_averaged = classes is None or row["class"].removeprefix("'") in classes or row["class"] in classes
                if row["metric"] == metric and row["value"] and is_averaged:
                    values[row["method"], row["run"], row["case"]].append(float(row["value"]))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise DataError(f"{path} is not the table of scores of a report: {err}") from err
    if metric not in metrics:
        raise UsageError(f"--power: {path} has no {metric}, the first metric of the study; it has {', '.join(metrics)}")
    means: dict[str, dict[str, dict[str, float]]] = {}
    for (method, run, case), of_case in values.items():
        means.setdefault(method, {}).setdefault(run, {})[case] = float(np.mean(of_case))
    return means


def _distinct(means: dict[str, dict[str, dict[str, float]]]) -> dict[str, np.ndarray]:
    """Scores on the cases that all runs share; runs with equal scores are copies of one training."""
    runs = [scores for of_method in means.values() for scores in of_method.values()]
    cases = sorted(set.intersection(*(set(scores) for scores in runs))) if runs else []
    return {
        method: np.unique([[round(scores[case], DECIMALS) for case in cases] for scores in of_method.values()], axis=0)
        for method, of_method in means.items()
    }


def _require_parts(folder: Path, methods: dict[str, np.ndarray], metric: str) -> None:
    if len(methods) < 2:
        raise UsageError(f"--power: {folder} has {len(methods)} method in {metric}; a pilot needs two")
    if max(len(scores) for scores in methods.values()) < 2:
        raise UsageError(
            f"--power: {folder} has one training of each method, which does not show how much trainings differ; a "
            "pilot needs two trainings of a method with different seeds"
        )
    if next(iter(methods.values())).shape[1] < 3:
        raise UsageError(f"--power: {folder} has fewer than 3 cases that all trainings predicted; a pilot needs more")

"""Costs of methods: counted without a GPU by building their networks, and measured from their training logs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from nnunetv2.comparison.protocol import recorded_precision
from nnunetv2.comparison.protocol_sources import FoldSources
from nnunetv2.comparison.results import MethodCost
from nnunetv2.comparison.runs import fold_folder, folds_of
from nnunetv2.comparison.scores import Run
from nnunetv2.comparison.training_logs import EpochRecord, epochs_of_fold
from nnunetv2.errors import NNUNetError, UsageError
from nnunetv2.training.logging.metric_lines import RUN

if TYPE_CHECKING:
    from nnunetv2.model.cost.model_cost import ModelCost

_log = logging.getLogger(__name__)

_GIGA, _MIB, _SECONDS_PER_HOUR = 1e9, 2**20, 3600

_Fold = tuple[FoldSources, tuple[EpochRecord, ...]]


def method_costs(runs: Sequence[Run], *, build_networks: bool = True) -> tuple[MethodCost, ...]:
    """Compute the costs of each method, in the order of the runs.

    Args:
        build_networks: also count operations and memory; otherwise only logged values are reported.
    """
    return tuple(
        _method_cost(method, [run for run in runs if run.method == method], build_networks=build_networks)
        for method in dict.fromkeys(run.method for run in runs)
    )


def _method_cost(method: str, runs: Sequence[Run], *, build_networks: bool) -> MethodCost:
    models = [run for run in runs if run.is_model]
    if not models:
        return MethodCost(method)
    folds = [[_read_fold(run, fold) for fold in folds_of(run)] for run in models]
    all_folds = [fold for of_run in folds for fold in of_run]
    sources = all_folds[0][0]
    counted = _counted_cost(models[0].folder, sources) if build_networks else None
    patch = sources.run_line.get("patch_size") or sources.configuration.get("patch_size")
    parameters = _parameters(sources, counted)
    return MethodCost(
        method=method,
        num_parameters=parameters[0],
        num_trained_parameters=parameters[1],
        gflops_per_patch=counted and counted.total("forward_flops") / _GIGA,
        training_gflops_per_patch=counted and counted.total("training_flops") / _GIGA,
        peak_memory_mib=_largest([epoch.peak_memory_mib for _, epochs in all_folds for epoch in epochs]),
        estimated_memory_mib=counted and counted.memory.training_peak / _MIB,
        seconds_per_iteration=_mean([_seconds_per_iteration(of_run) for of_run in folds]),
        seconds_per_case=_mean([_seconds_per_case(of_run) for of_run in folds]),
        gpu_hours=_mean([_hours(of_run) for of_run in folds]),
        device=_in_words([_device(fold) for fold, _ in all_folds]),
        pretrained=_in_words([_pretrained(fold) for fold, _ in all_folds]),
        patch_size=tuple(patch) if patch else None,
    )


def _read_fold(run: Run, fold: str) -> _Fold:
    sources = FoldSources(fold_folder(run, fold))
    return sources, epochs_of_fold(sources)


def _counted_cost(folder: Path, sources: FoldSources) -> ModelCost | None:
    from nnunetv2.training.cost.trainer_cost import trainer_cost, trainer_of_model_folder
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    try:
        try:
            trainer = trainer_of_model_folder(folder)
        except UsageError:
            if not _has_planned_network(sources):
                raise
            trainer = trainer_of_model_folder(folder, "nnUNetTrainer")  # the trainer is missing, but plans suffice
        return trainer_cost(trainer, PlansManager(folder / "plans.json"), precision=recorded_precision(sources))
    except (NNUNetError, ImportError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as err:
        _log.warning(
            "The network of %s cannot be built, so its operations and memory are not reported (%s)", folder, err
        )
        return None


def _has_planned_network(sources: FoldSources) -> bool:
    """Whether the recorded network class is the planned one, i.e. the trainer did not replace it."""
    planned = sources.configuration.get("architecture", {}).get("network_class_name", "")
    return bool(planned) and sources.debug.get("network") == planned.rpartition(".")[2]


def _parameters(sources: FoldSources, counted: ModelCost | None) -> tuple[int | None, int | None]:
    recorded = sources.run_line
    if "num_parameters" in recorded:
        return recorded["num_parameters"], recorded.get("num_trained_parameters")
    return (None, None) if counted is None else (counted.total("parameters"), counted.total("trainable_parameters"))


def _seconds_per_iteration(folds: Sequence[_Fold]) -> float | None:
    """Median over the epochs: robust to slow first epochs and background load."""
    durations = []
    for sources, epochs in folds:
        num_steps = sources.run_line.get("num_iterations_per_epoch")
        if num_steps:
            durations += [epoch.train_seconds / num_steps for epoch in epochs if not math.isnan(epoch.train_seconds)]
    return median(durations) if durations else None


def _seconds_per_case(folds: Sequence[_Fold]) -> float | None:
    """Median over the folds of their medians over cases."""
    seconds = [sources.validation_line.get("seconds_per_case") for sources, _ in folds]
    known = [value for value in seconds if value is not None]
    return median(known) if known else None


def _hours(folds: Sequence[_Fold]) -> float | None:
    """Total over folds and processes; None if a fold has no log or does not record its number of processes."""
    total = 0.0
    for _, epochs in folds:
        if not epochs or any(epoch.world_size is None or math.isnan(epoch.seconds) for epoch in epochs):
            return None
        total += sum(epoch.seconds * epoch.world_size for epoch in epochs)
    return total / _SECONDS_PER_HOUR


def _device(sources: FoldSources) -> str | None:
    line = sources.run_line
    if line.get("device"):
        return line["device"] if line["device"] != "cuda" else line.get("device_name") or "cuda"
    return sources.debug.get("gpu_name") or sources.debug.get("device")


def _pretrained(sources: FoldSources) -> str | None:
    """Initial weights, taken from the first run: resumed runs do not record them."""
    return next((line for line in sources.lines if line["type"] == RUN), {}).get("pretrained_weights")


def _in_words(texts: Sequence[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(filter(None, texts))) or None


def _largest(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return max(known) if known else None


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None

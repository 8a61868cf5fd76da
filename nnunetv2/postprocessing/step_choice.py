"""Select the postprocessing steps that improve the segmentations of a cross-validation."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunetv2.evaluation.confusion import LabelConfusion, LabelOrRegion
from nnunetv2.evaluation.evaluate_predictions import confusion_of_pair, num_processes_for, read_pair
from nnunetv2.evaluation.segmentation_format import SegmentationFormat
from nnunetv2.evaluation.summary_json import summary_of_cases
from nnunetv2.utilities.processes.case_pool import map_cases

logger = logging.getLogger(__name__)

Summary = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One postprocessing step: `function(segmentation, **kwargs)` returns a modified copy."""

    function: Callable[..., np.ndarray]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self, segmentation: np.ndarray) -> np.ndarray:
        return self.function(segmentation, **self.kwargs)


def apply_steps(segmentation: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    for step in steps:
        segmentation = step(segmentation)
    return segmentation


@dataclass(frozen=True)
class ScoredCases:
    """Predictions with their references, and what is needed to score steps on them."""

    names: Sequence[str]
    """file names, the same in both folders"""
    predictions: str
    """folder"""
    references: str
    """folder"""
    stored: SegmentationFormat
    num_processes: int | None = None

    def pairs(self) -> list[tuple[str, str]]:
        return [(os.path.join(self.predictions, name), os.path.join(self.references, name)) for name in self.names]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call `function(prediction_file, reference_file, stored, *arguments)` for each case."""
        pairs = self.pairs()
        num_workers = num_processes_for([reference for _, reference in pairs], self.num_processes)
        jobs = [(*pair, self.stored, *arguments) for pair in pairs]
        return list(map_cases(function, jobs, num_workers, names=list(self.names)))


def choose_steps(cases: ScoredCases, keep_largest: Callable[..., np.ndarray]) -> tuple[list[Step], Summary]:
    """Try to keep the largest component of the whole foreground, then of each label or region.

    The first step is accepted if the mean foreground Dice rises and no label or region gets worse; each further one
    if the Dice of its own label or region rises, given the steps accepted before. Regions are tried in the order of
    their declaration. Labels do not overlap, so a step for one does not affect the others: all are tried at once.

    Args:
        keep_largest: `keep_largest(segmentation, labels_or_regions=...)`.

    Returns:
        The accepted steps, and the summary of the unprocessed segmentations.
    """
    stored = cases.stored
    whole = Step(keep_largest, {"labels_or_regions": list(stored.foreground_labels)})
    before, after = _try_steps(cases, [], [whole])
    steps = [whole] if _improves_without_harm(before, after) else []
    _report("the foreground as a whole", before["foreground_mean"], after["foreground_mean"], bool(steps))
    if len(stored.regions) > 1:
        for group in [[region] for region in stored.regions] if stored.has_regions else [stored.regions]:
            steps += _helpful_steps(cases, steps, group, keep_largest)
    return steps, before


def _helpful_steps(
    cases: ScoredCases, steps: Sequence[Step], regions: Sequence[LabelOrRegion], keep_largest: Callable[..., np.ndarray]
) -> list[Step]:
    """Select the steps that help after `steps`; the `regions` must not overlap."""
    candidates = [Step(keep_largest, {"labels_or_regions": region}) for region in regions]
    baseline, *trials = _try_steps(cases, steps, candidates)
    helpful = []
    for region, candidate, trial in zip(regions, candidates, trials, strict=True):
        before, after = baseline["mean"][region], trial["mean"][region]
        if after["Dice"] > before["Dice"]:
            helpful.append(candidate)
        _report(cases.stored.names.get(region, str(region)), before, after, candidate in helpful)
    return helpful


def _improves_without_harm(before: Summary, after: Summary) -> bool:
    if not after["foreground_mean"]["Dice"] > before["foreground_mean"]["Dice"]:
        return False
    return not any(after["mean"][region]["Dice"] < scores["Dice"] for region, scores in before["mean"].items())


def _report(what: str, before: dict[str, float], after: dict[str, float], is_taken: bool) -> None:
    verdict = "applied" if is_taken else "not applied"
    change = after["Dice"] - before["Dice"]
    words = f"Dice {before['Dice']:.5f}, which it changes by {change:+.2g}" if change else "no change of Dice"
    logger.info("Keeping only the largest component of %s: %s (%s)", what, verdict, words)


def _try_steps(cases: ScoredCases, taken: Sequence[Step], candidates: Sequence[Step]) -> list[Summary]:
    """Summaries after the accepted steps, and after each candidate applied on top of them."""
    of_cases = cases.run(metrics_of_trials, taken, candidates)
    return [
        summary_of_cases([_as_case(pair, metrics) for pair, metrics in zip(cases.pairs(), trial, strict=True)], regions)
        for regions in [cases.stored.regions]
        for trial in zip(*of_cases, strict=True)
    ]


def _as_case(pair: tuple[str, str], metrics: dict[LabelOrRegion, dict[str, float]]) -> dict[str, Any]:
    prediction, reference = pair
    return {"reference_file": reference, "prediction_file": prediction, "metrics": metrics}


def metrics_of_trials(
    prediction_file: str,
    reference_file: str,
    stored: SegmentationFormat,
    taken: Sequence[Step],
    candidates: Sequence[Step],
) -> list[dict[LabelOrRegion, dict[str, float]]]:
    """Metrics of one case after the accepted steps, and after each candidate applied on top of them."""
    reference, prediction, _ = read_pair(reference_file, prediction_file, stored.reader_writer)
    reference, segmentation = reference[0], apply_steps(prediction[0], taken)
    confusion = confusion_of_pair(reference, segmentation, stored.regions, stored.ignore_label)
    trials = [confusion]
    for candidate in candidates:
        after = candidate(segmentation)
        counts = after != segmentation
        if stored.ignore_label is not None:
            counts &= reference != stored.ignore_label
        # Recounting only the changed voxels keeps many candidates cheap.
        trials.append(confusion.after_change(reference[counts], segmentation[counts], after[counts]))
    return [_metrics(trial, stored.regions) for trial in trials]


def metrics_after_steps(
    prediction_file: str,
    reference_file: str,
    stored: SegmentationFormat,
    steps: Sequence[Step],
    output_folder: str | None,
) -> dict[str, Any]:
    """Apply the steps to one case and score it; write it if there is an output folder."""
    reference, prediction, properties = read_pair(reference_file, prediction_file, stored.reader_writer)
    segmentation = apply_steps(prediction[0], steps)
    if output_folder is not None:
        target = os.path.join(output_folder, os.path.basename(prediction_file))
        stored.reader_writer.write_seg(segmentation, target, properties)
    confusion = confusion_of_pair(reference[0], segmentation, stored.regions, stored.ignore_label)
    return _as_case((prediction_file, reference_file), _metrics(confusion, stored.regions))


def _metrics(confusion: LabelConfusion, regions: Sequence[LabelOrRegion]) -> dict[LabelOrRegion, dict[str, float]]:
    return {region: confusion.metrics(region) for region in regions}

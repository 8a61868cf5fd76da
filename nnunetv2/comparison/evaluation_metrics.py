"""The metrics of a comparison in the evaluation of a single folder: `nnUNetv2_evaluate_* --metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2.comparison.among_classes import disjoint_classes
from nnunetv2.comparison.case_scores import PairScores, score_arrays
from nnunetv2.comparison.declared_classes import chosen, declared_regions
from nnunetv2.comparison.metric import AMONG, COMPUTED, DIAGONAL, METRICS, require_usable
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.confusion import LabelOrRegion
from nnunetv2.evaluation.evaluation_options import EvaluationOptions
from nnunetv2.utilities.extensions import require_registered

_OF_UPSTREAM = ("Dice", "IoU")  # in every summary


@dataclass(frozen=True)
class ChosenMetrics:
    """Computes metrics of `METRICS` for a summary; see `nnunetv2.evaluation.evaluation_options.FurtherMetrics`.

    Where masks are empty, the rule of the metric decides. A region that is empty in both masks is NaN, as Dice is,
    unless the rule computes a value.
    """

    metrics: tuple[str, ...]
    among: tuple[LabelOrRegion, ...] = ()
    """regions that the metrics "among classes" tell apart; empty for those that contain no other"""

    def __call__(
        self,
        reference: np.ndarray,
        prediction: np.ndarray,
        spacing: Sequence[float],
        regions: Sequence[LabelOrRegion],
        ignore_label: int | None,
        is_inside: np.ndarray | None,
    ) -> dict[LabelOrRegion, dict[str, float]]:
        among = self.among or tuple(disjoint_classes(regions))
        scores = score_arrays(
            reference,
            prediction,
            spacing,
            regions,
            self.metrics,
            ignore_label=ignore_label,
            among=among,
            is_inside=is_inside,
        )
        return {
            region: {
                name: _value(name, scores, position)
                for name in self.metrics
                if region in among or AMONG not in METRICS[name].reads
            }
            for position, region in enumerate(regions)
        }


def _value(metric: str, scores: PairScores, position: int) -> float:
    value, rule = scores.values[metric][position], METRICS[metric].empty_masks
    is_unpredicted = scores.num_predicted[position] == 0
    if scores.num_reference[position] == 0:
        if rule.absent == COMPUTED:
            return value
        return math.nan if is_unpredicted or rule.absent is None else float(rule.absent[1])
    if not is_unpredicted or rule.missed == COMPUTED:
        return value
    return scores.diagonal if rule.missed == DIAGONAL else float(rule.missed)


@dataclass(frozen=True)
class EvaluationChoice:
    """What a call of `nnUNetv2_evaluate_*` asks for beyond upstream's flags."""

    metrics: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    """each `NAME=LABEL,LABEL,...`"""
    classes: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    """metric, classes, or both"""
    among: tuple[str, ...] = ()
    fields: str | None = None

    def __post_init__(self) -> None:
        for name in self.metrics:
            require_registered("metrics", "metric", name)
        require_usable(self.all_metrics)

    @property
    def primary_metric(self) -> str:
        """Metric of the printed line."""
        return next((name for name in self.primary if name in METRICS), "Dice")

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """Metrics to compute beside those of upstream."""
        names = dict.fromkeys([*self.metrics, self.primary_metric])
        return tuple(name for name in names if name not in _OF_UPSTREAM)

    def resolved(
        self, classes: Mapping[str, LabelOrRegion], labels: Mapping[str, int], ignore_label: int | None
    ) -> tuple[list[LabelOrRegion], EvaluationOptions]:
        """Regions to score and the options.

        Args:
            classes: those of the dataset, or of the call, by name.
            labels: number of each label by its name.

        Raises:
            UsageError: a class or label is unknown, or there is nothing to score.
        """
        if self.regions:
            classes = declared_regions(self.regions, labels, ignore_label)
        if self.classes:
            classes = {name: classes[name] for name in chosen("--classes", self.classes, classes)}
        if not classes:
            raise UsageError("No labels to evaluate were given; name them with -l, or regions of them with --regions")
        primary = [name for name in self.primary if name not in METRICS]
        among = chosen("--among", self.among, classes)
        further = ChosenMetrics(self.all_metrics, tuple(classes[name] for name in among)) if self.all_metrics else None
        decisive = chosen("--primary (a metric or class)", primary, classes)
        return list(classes.values()), EvaluationOptions(
            further=further,
            fields=self.fields,
            names=classes if self.regions else {},
            primary=[classes[name] for name in decisive],
        )

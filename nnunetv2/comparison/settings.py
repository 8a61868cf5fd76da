"""How models are compared: metrics, the treatment of empty masks, and the statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from dinov3.utils.yaml_config import require_choice
from nnunetv2.comparison.metric import METRICS, Metric, metrics_of_users
from nnunetv2.errors import UsageError

EMPTY_POLICIES = ("exclude", "one")
_DEFAULT_METRICS = ("Dice", "NSD", "HD95", "ASSD")


def default_metrics() -> tuple[str, ...]:
    """Those of the package that every report should have, then all that users register."""
    return (*_DEFAULT_METRICS, *metrics_of_users())


@dataclass(frozen=True)
class CompareSettings:
    """Everything that a comparison depends on beside the models."""

    metrics: tuple[str, ...] = field(default_factory=default_metrics)
    """names of METRICS; the first is the primary one, by which models are ranked"""
    nsd_tolerance: float = 1.0
    """mm by which surfaces may lie apart and still count as equal"""
    empty: str = "exclude"
    """what to do with a class that the reference of a case lacks: `exclude` leaves the case out for all models alike;
    `one` gives overlap metrics 1 to an empty prediction and 0 to any other, and leaves distances out"""
    num_resamples: int = 5000
    """of every bootstrap"""
    seed: int = 0
    """of every bootstrap"""
    alpha: float = 0.05
    """error rate of the whole family of model pairs within a metric; intervals cover 1 - alpha"""
    margin: float | None = None
    """non-inferiority margin of the primary metric, in its unit; None asks no such question"""
    baseline: str | None = None
    """method that all others are compared with; None compares every pair"""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise UsageError(f"No metric is given; accepted are {', '.join(METRICS)}")
        for name in self.metrics:
            require_choice("metrics", name, tuple(METRICS))
        require_choice("empty", self.empty, EMPTY_POLICIES)
        _require(0 < self.nsd_tolerance < inf, "nsd_tolerance", self.nsd_tolerance, "a finite length above 0, in mm")
        _require(self.num_resamples >= 100, "bootstrap", self.num_resamples, "at least 100 resamples")
        _require(0 < self.alpha < 0.5, "alpha", self.alpha, "a number above 0 and below 0.5")
        if self.margin is not None:  # without one no metric is imported, so -h stays fast
            largest = inf if self.primary.unit else 1.0  # a metric without unit is a share
            accepted = f"a number above 0{'' if self.primary.unit else ' and below 1'}"
            _require(0 < self.margin < largest, "margin", self.margin, accepted)

    @property
    def primary(self) -> Metric:
        return METRICS[self.metrics[0]]


def _require(is_right: bool, name: str, given: object, accepted: str) -> None:
    if not is_right:
        raise UsageError(f"{name} is {given}; accepted is {accepted}")

"""How models are compared: metrics, the treatment of empty masks, and the statistics."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dinov3.utils.yaml_config import require_choice
from nnunetv2.errors import UsageError


@dataclass(frozen=True)
class Metric:
    """One number per case and class."""

    name: str
    meaning: str
    higher_is_better: bool
    unit: str = ""


METRICS = {
    metric.name: metric
    for metric in (
        Metric("Dice", "Dice similarity coefficient", True),
        Metric("IoU", "intersection over union", True),
        Metric("NSD", "normalised surface Dice", True),
        Metric("HD95", "95th percentile of the Hausdorff distance", False, "mm"),
        Metric("ASSD", "average symmetric surface distance", False, "mm"),
    )
}
EMPTY_POLICIES = ("exclude", "one")


@dataclass(frozen=True)
class CompareSettings:
    """Everything that a comparison depends on beside the models."""

    metrics: tuple[str, ...] = ("Dice", "NSD", "HD95", "ASSD")
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
        largest = inf if self.primary.unit else 1.0  # a metric without unit is a share
        accepted = f"a number above 0{'' if self.primary.unit else ' and below 1'}"
        _require(self.margin is None or 0 < self.margin < largest, "margin", self.margin, accepted)

    @property
    def primary(self) -> Metric:
        return METRICS[self.metrics[0]]


def _require(is_right: bool, name: str, given: object, accepted: str) -> None:
    if not is_right:
        raise UsageError(f"{name} is {given}; accepted is {accepted}")

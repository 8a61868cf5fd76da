"""Settings of a comparison: metrics, empty-mask policy and statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from dinov3.utils.yaml_config import require_choice
from nnunetv2.comparison.metric import METRICS, Metric, metrics_of_users
from nnunetv2.errors import UsageError
from nnunetv2.utilities.extensions import require_registered

EMPTY_POLICIES = ("exclude", "one")
_DEFAULT_METRICS = ("Dice", "NSD", "HD95", "ASSD")


def default_metrics() -> tuple[str, ...]:
    """The standard metrics of every report, followed by all user-defined ones."""
    return (*_DEFAULT_METRICS, *metrics_of_users())


@dataclass(frozen=True)
class CompareSettings:
    """Everything besides the models that determines a comparison."""

    metrics: tuple[str, ...] = field(default_factory=default_metrics)
    """names of METRICS; the first is the primary metric, which ranks the models"""
    nsd_tolerance: float = 1.0
    """distance in mm up to which surfaces count as matching"""
    empty: str = "exclude"
    """policy for classes absent from the reference of a case: `exclude` drops the case for all models; `one` scores
    overlap metrics 1 for an empty prediction and 0 otherwise, and drops the case for distances"""
    num_resamples: int = 5000
    """of every bootstrap"""
    seed: int = 0
    """of every bootstrap"""
    alpha: float = 0.05
    """family-wise error rate over the model pairs of a metric; intervals cover 1 - alpha"""
    margin: float | None = None
    """non-inferiority margin in the unit of the primary metric; None skips this test"""
    baseline: str | None = None
    """method to compare all others with; None compares every pair"""
    regions: tuple[str, ...] = ()
    """scored regions, each `NAME=LABEL,LABEL,...`; empty for the classes of the dataset"""
    classes: tuple[str, ...] = ()
    """classes that are scored; empty for all"""
    primary_classes: tuple[str, ...] = ()
    """classes over which means are taken, so that they decide; empty for all that every method has"""
    among: tuple[str, ...] = ()
    """classes that AccFound, AccAll, SensFound and SensAll tell apart; empty for all that contain no other one"""
    lacks: tuple[str, ...] = ()
    """classes that methods do not know, each `METHOD:CLASS,CLASS,...`; `METHOD:` if a method lacks none"""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise UsageError(f"No metric is given; accepted are {', '.join(METRICS)}")
        for name in self.metrics:
            require_registered("metrics", "metric", name)
        require_choice("empty", self.empty, EMPTY_POLICIES)
        _require(0 < self.nsd_tolerance < inf, "nsd_tolerance", self.nsd_tolerance, "a finite length above 0, in mm")
        _require(self.num_resamples >= 100, "bootstrap", self.num_resamples, "at least 100 resamples")
        _require(0 < self.alpha < 0.5, "alpha", self.alpha, "a number above 0 and below 0.5")
        if self.margin is not None:  # `primary` imports a metric, which would slow down -h
            largest = inf if self.primary.unit else 1.0  # a metric without unit is a fraction
            accepted = f"a number above 0{'' if self.primary.unit else ' and below 1'}"
            _require(0 < self.margin < largest, "margin", self.margin, accepted)

    @property
    def primary(self) -> Metric:
        return METRICS[self.metrics[0]]


def _require(is_right: bool, name: str, given: object, accepted: str) -> None:
    if not is_right:
        raise UsageError(f"{name} is {given}; accepted is {accepted}")

"""Base class and registry of metrics: one number per case and class, with direction, unit and empty-mask rule."""

from __future__ import annotations

import abc
import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from nnunetv2.errors import UsageError
from nnunetv2.utilities import extensions
from nnunetv2.utilities.class_lookup import EXTENSIONS
from nnunetv2.utilities.file_errors import reported_with_place
from nnunetv2.utilities.registered_class import require_complete

if TYPE_CHECKING:
    from nnunetv2.comparison.mask_pair import MaskPair

__all__ = ["AS_DISTANCE", "AS_OVERLAP", "METRICS", "EmptyMasks", "Metric", "register_metric"]

# Parts of a mask pair that a metric reads.
COUNTS, MASKS, DISTANCES, SKELETONS, AMONG = "counts", "masks", "distances", "skeletons", "among"

_PARTS = {COUNTS, MASKS, DISTANCES, SKELETONS, AMONG}

COMPUTED, DIAGONAL = "computed", "diagonal"

_NAME = re.compile(r"[^\s,-][^\s,]*")  # --metrics splits at spaces and commas

MetricClass = TypeVar("MetricClass", bound="type[Metric]")


@dataclass(frozen=True)
class EmptyMasks:
    """Value of a metric where the reference or the prediction of a class is empty.

    The policy `exclude` drops a class absent from the reference for that case, whatever the metric.
    """

    missed: float | Literal["diagonal", "computed"]
    """present but not predicted: a number, the image diagonal in mm ("diagonal"), or the result of `compute`
    ("computed")"""
    absent: tuple[float, float] | Literal["computed"] | None = None
    """absent from the reference, with the policy `one`: the numbers for an empty and for any other prediction, or the
    result of `compute` ("computed"); None excludes the case"""

    def __post_init__(self) -> None:
        numbers = [self.missed] if self.missed not in (COMPUTED, DIAGONAL) else []
        numbers += self.absent if self.absent not in (COMPUTED, None) else []
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            raise TypeError(f"{self} has values that are neither finite numbers nor one of the accepted words")


_DECLARED = {"meaning": str, "definition": str, "higher_is_better": bool, "empty_masks": EmptyMasks}
_IN_WORDS = {str: "a text", bool: "True or False", EmptyMasks: "AS_OVERLAP, AS_DISTANCE or EmptyMasks(missed=...)"}

AS_OVERLAP = EmptyMasks(missed=0.0, absent=(1.0, 0.0))
"""rule of overlaps such as Dice: missing a present class scores 0, leaving an absent one empty scores 1"""
AS_DISTANCE = EmptyMasks(missed=DIAGONAL)
"""rule of distances, which are bounded only by the size of the image"""


@dataclass(frozen=True)
class Origin:
    """File of a user's metric, as it was at import."""

    path: Path
    sha256: str

    def require_unchanged(self) -> None:
        """Raise `UsageError` if the file changed since import: scores of the old code would be cached as new ones."""
        if hashlib.sha256(self.path.read_bytes()).hexdigest() != self.sha256:
            raise UsageError(f"{self.path} has changed since it was imported; restart Python")


class Metric(abc.ABC):
    """Base class of all metrics.

    Attributes:
        name: registered name; accepted by `--metrics` and shown in tables.
        meaning: full name, for example "Dice similarity coefficient".
        definition: how it is computed, one sentence for the report; `{tolerance}` is replaced by `--nsd_tolerance`.
        higher_is_better: direction of improvement.
        empty_masks: rule for empty masks.
        unit: for example "mm"; empty for a fraction from 0 to 1. "mm" is shown as "px" where pixels have no size.
        digits: decimals in tables; None selects 3 for a fraction and 2 otherwise.
        reads: parts of the pair that it uses, out of "counts", "masks", "distances", "skeletons" and "among".
        version: increase it if values change while the file does not, for example through a module that it imports.
        origin: None for the metrics of this package.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    definition: ClassVar[str]
    higher_is_better: ClassVar[bool]
    empty_masks: ClassVar[EmptyMasks]
    unit: ClassVar[str] = ""
    digits: ClassVar[int | None] = None
    reads: ClassVar[tuple[str, ...]] = (MASKS,)
    version: ClassVar[int] = 1
    origin: ClassVar[Origin | None] = None

    @abc.abstractmethod
    def compute(self, pair: MaskPair) -> float:
        """Compute the value of one class in one case; must be finite.

        Called if neither mask is empty, and where `empty_masks` says "computed".
        """

    def is_defined(self, pair: MaskPair) -> bool:
        """Whether the case counts for the class beyond the rule for empty masks; must depend on the reference alone."""
        return True

    @property
    def is_distance(self) -> bool:
        """Whether a missed class scores the image diagonal."""
        return self.empty_masks.missed == DIAGONAL


def register_metric(name: str) -> Callable[[MetricClass], MetricClass]:
    """Class decorator that registers a metric; `name` must be a literal, since files are searched before they run."""

    def register(metric: MetricClass) -> MetricClass:
        require_complete(metric, Metric)
        _require_declared(metric)
        if not _NAME.fullmatch(name):
            raise UsageError(f"The metric name {name!r} must have no space or comma, and not begin with a dash")
        metric.name = name
        return metric

    return register


def _require_declared(metric: type[Metric]) -> None:
    """Rejects a metric that lacks an attribute of its declaration, or has one of another type."""
    missing = [attribute for attribute in _DECLARED if not hasattr(metric, attribute)]
    if missing:
        raise UsageError(f"{metric.__name__} must set {', '.join(missing)}, see Metric of {Metric.__module__}")
    for attribute, accepted in _DECLARED.items():
        given = getattr(metric, attribute)
        if not isinstance(given, accepted) or given == "":
            raise UsageError(f"{metric.__name__}.{attribute} is {given!r}; it must be {_IN_WORDS[accepted]}")
    if not isinstance(metric.unit, str):
        raise UsageError(f'{metric.__name__}.unit is {metric.unit!r}; it must be a text, "" for a fraction from 0 to 1')
    if isinstance(metric.reads, str) or not set(metric.reads) <= _PARTS:
        raise UsageError(
            f"{metric.__name__}.reads is {metric.reads!r}; it must be a tuple with some of {', '.join(sorted(_PARTS))}"
        )


class _Registered(Mapping[str, Metric]):
    """Mapping of registered metrics; imports the file of a metric on first access."""

    def __getitem__(self, name: str) -> Metric:
        """Raises `UsageError` for an unknown name and lists the registered ones."""
        return _loaded(name, os.environ.get(EXTENSIONS, ""))

    def __iter__(self) -> Iterator[str]:
        return iter(extensions.names("metric"))

    def __len__(self) -> int:
        return len(extensions.names("metric"))

    def __contains__(self, name: object) -> bool:
        return name in extensions.names("metric")


METRICS: Mapping[str, Metric] = _Registered()


def metrics_of_users() -> tuple[str, ...]:
    """Names of metrics registered outside the package, without importing their files."""
    return tuple(dict.fromkeys(each.name for each in extensions.of_users("metric")))


def require_usable(metrics: Iterable[str]) -> None:
    """Loads metrics, so that a mistake in the file of one is reported before anything is trained or scored.

    Raises:
        UsageError: a metric is unknown, or its file cannot be imported or lacks a part of the declaration.
    """
    for name in metrics:
        METRICS[name]


@functools.cache
def _loaded(name: str, folders: str) -> Metric:
    """Load a metric; cached because reports look it up for every number, per value of the environment variable."""
    extension = extensions.find("metric", name)
    origin = Origin(extension.path, extension.sha256) if extension.is_external else None
    metric = extension.load()
    metric.origin = origin
    with reported_with_place(extension.path, extension.root):
        return metric()

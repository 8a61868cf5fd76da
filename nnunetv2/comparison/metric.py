"""What a metric of a comparison is: a number per case and class, with its direction, unit and rule for empty masks."""

from __future__ import annotations

import abc
import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from nnunetv2.errors import UsageError
from nnunetv2.utilities import extensions
from nnunetv2.utilities.class_lookup import EXTENSIONS

if TYPE_CHECKING:
    from nnunetv2.comparison.mask_pair import MaskPair

__all__ = ["AS_DISTANCE", "AS_OVERLAP", "METRICS", "EmptyMasks", "Metric", "register_metric"]

# Parts of a pair of masks that a metric reads.
COUNTS, MASKS, DISTANCES = "counts", "masks", "distances"

COMPUTED, DIAGONAL = "computed", "diagonal"

_DECLARED = ("meaning", "definition", "higher_is_better", "empty_masks")
_NAME = re.compile(r"[^\s,-][^\s,]*")  # a word of --metrics, which may be a list with commas

MetricClass = TypeVar("MetricClass", bound="type[Metric]")


@dataclass(frozen=True)
class EmptyMasks:
    """What a metric is where the reference or the prediction of a class is empty.

    With the policy `exclude` a class that the reference lacks is left out of the case, whatever the metric.
    """

    missed: float | Literal["diagonal", "computed"]
    """where the class is there and nothing is predicted: a number; or the diagonal of the image in mm; or what
    `compute` returns"""
    absent: tuple[float, float] | Literal["computed"] | None = None
    """where the reference lacks the class, with the policy `one`: the numbers of an empty prediction and of any other;
    or what `compute` returns; None leaves the case out"""

    def __post_init__(self) -> None:
        numbers = [self.missed] if self.missed not in (COMPUTED, DIAGONAL) else []
        numbers += self.absent if self.absent not in (COMPUTED, None) else []
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            raise TypeError(f"{self} has values that are neither finite numbers nor one of the accepted words")


AS_OVERLAP = EmptyMasks(missed=0.0, absent=(1.0, 0.0))
"""the rule of Dice: an empty prediction of what is there is as bad as can be, one of what is not there is perfect"""
AS_DISTANCE = EmptyMasks(missed=DIAGONAL)
"""the rule of distances, which have no worst value but the size of the image"""


@dataclass(frozen=True)
class Origin:
    """The file of a metric outside the package, as it was when it was imported."""

    path: Path
    sha256: str

    def require_unchanged(self) -> None:
        """Raises `UsageError` if the file changed after its import: scores of the old code would be cached as new."""
        if hashlib.sha256(self.path.read_bytes()).hexdigest() != self.sha256:
            raise UsageError(f"{self.path} has changed since it was imported; restart Python")


class Metric(abc.ABC):
    """Base of all metrics.

    Attributes:
        name: under which it is registered; what `--metrics` takes and tables show.
        meaning: the name in full, for example "Dice similarity coefficient".
        definition: how it is computed, one sentence for the report; `{tolerance}` stands for `--nsd_tolerance`.
        higher_is_better: the direction.
        empty_masks: the rule for empty masks.
        unit: for example "mm"; empty for a share from 0 to 1.
        digits: behind the point in tables; None: 3 of a share, otherwise 2.
        reads: parts of the pair, of "counts", "masks" and "distances".
        version: raised when values change although the file does not, as when a file that it imports does.
        origin: None of the metrics of the package.
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
        """The value of one class in one case, a finite number.

        Called where neither mask is empty, and where `empty_masks` says "computed".
        """

    @property
    def is_distance(self) -> bool:
        """Whether an empty prediction gets the diagonal of the image."""
        return self.empty_masks.missed == DIAGONAL


def register_metric(name: str) -> Callable[[MetricClass], MetricClass]:
    """Class decorator that names a metric; the name must be a literal, as files are searched for it before they run."""

    def register(metric: MetricClass) -> MetricClass:
        if not issubclass(metric, Metric):
            raise TypeError(f"{metric.__name__} must derive from Metric")
        missing = [attribute for attribute in _DECLARED if not hasattr(metric, attribute)]
        if missing:
            raise TypeError(f"{metric.__name__} must set {', '.join(missing)}")
        if not _NAME.fullmatch(name):
            raise TypeError(f"The metric name {name!r} must have no space or comma, and not begin with a dash")
        metric.name = name
        return metric

    return register


class _Registered(Mapping[str, Metric]):
    """The registered metrics by name; the file of one is imported when it is looked up."""

    def __getitem__(self, name: str) -> Metric:
        """Raises `UsageError` for a name that is not registered, with those that are."""
        return _loaded(name, os.environ.get(EXTENSIONS, ""))

    def __iter__(self) -> Iterator[str]:
        return iter(extensions.names("metric"))

    def __len__(self) -> int:
        return len(extensions.names("metric"))

    def __contains__(self, name: object) -> bool:
        return name in extensions.names("metric")


METRICS: Mapping[str, Metric] = _Registered()


def metrics_of_users() -> tuple[str, ...]:
    """Names of the metrics outside the package; no file is imported."""
    return tuple(name for name in METRICS if extensions.find("metric", name).is_external)


@functools.cache
def _loaded(name: str, folders: str) -> Metric:
    """Reports look metrics up for every number; another value of the variable may mean another metric."""
    extension = extensions.find("metric", name)
    origin = Origin(extension.path, extension.sha256) if extension.is_external else None
    metric = extension.load()
    metric.origin = origin
    return metric()

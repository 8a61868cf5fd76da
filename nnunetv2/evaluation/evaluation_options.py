"""What an evaluation does beyond upstream's: further metrics, fields of view, names of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nnunetv2.evaluation.confusion import LabelOrRegion


class FurtherMetrics(Protocol):
    """Computes metrics that are added to those of upstream; picklable, for worker processes."""

    def __call__(
        self,
        reference: np.ndarray,
        prediction: np.ndarray,
        spacing: Sequence[float],
        regions: Sequence[LabelOrRegion],
        ignore_label: int | None,
        is_inside: np.ndarray | None,
    ) -> dict[LabelOrRegion, dict[str, float]]:
        """Values by region and metric.

        Args:
            reference, prediction: labels (1, Z, Y, X).
            is_inside: boolean (Z, Y, X), the field of view; None is the whole image.
        """


@dataclass(frozen=True)
class EvaluationOptions:
    """The default evaluates as upstream does, and writes the same keys."""

    further: FurtherMetrics | None = None
    fields: str | None = None
    """folder with a field of view per case; voxels outside are excluded"""
    names: Mapping[str, LabelOrRegion] = field(default_factory=dict)
    """names of the scored regions, to be written as `regions`"""
    primary: Sequence[LabelOrRegion] = ()
    """regions whose mean is written as `primary_mean`"""

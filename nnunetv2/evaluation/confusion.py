"""Overlap counts of two segmentations; a single joint histogram covers all labels and regions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from nnunetv2.errors import DataError, UsageError

LabelOrRegion = int | tuple[int, ...]

_BLOCK = 1 << 20  # voxels counted at a time, which bounds temporary arrays to a few tens of MB


class LabelConfusion:
    """Joint voxel counts of a reference and a prediction for a set of labels.

    `counts[i, j]` is the number of voxels with reference code i and prediction code j. Code k > 0 denotes
    `labels[k - 1]`, code 0 any other value.
    """

    def __init__(self, labels: Iterable[int]) -> None:
        self.labels = sorted({int(label) for label in labels})
        if self.labels and self.labels[0] < 0:
            raise UsageError(f"{self.labels[0]} is not a label; labels are whole numbers from 0 upwards")
        self.counts = np.zeros((len(self.labels) + 1,) * 2, dtype=np.int64)
        # Entry v + 1 is the code of value v. Both ends hold code 0, so clipping maps unknown values to it.
        self._code_of_value = np.zeros(max(self.labels, default=0) + 3, dtype=np.int64)
        for code, label in enumerate(self.labels, start=1):
            self._code_of_value[label + 1] = code

    def add(self, reference: np.ndarray, prediction: np.ndarray) -> None:
        """Count all voxels of two arrays of the same shape. Raises `DataError` for values that are not integers."""
        reference, prediction = reference.ravel(), prediction.ravel()
        side = len(self.counts)
        for start in range(0, reference.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            joint = self._codes(reference[block])
            joint *= side
            joint += self._codes(prediction[block])
            self.counts += np.bincount(joint, minlength=side * side).reshape(side, side)

    def drop_reference_label(self, label: int) -> None:
        """Discard the voxels whose reference is `label`."""
        self.counts[1 + self.labels.index(label)] = 0

    def after_change(self, reference: np.ndarray, before: np.ndarray, after: np.ndarray) -> LabelConfusion:
        """Counts after a change of the prediction in these voxels only; avoids recounting the others."""
        removed, added = LabelConfusion(self.labels), LabelConfusion(self.labels)
        removed.add(reference, before)
        added.add(reference, after)
        added.counts += self.counts - removed.counts
        return added

    def metrics(self, region: LabelOrRegion) -> dict[str, float]:
        """Compute Dice, IoU, FP, TP, FN, TN, n_pred and n_ref of a label or of a union of labels.

        Dice and IoU are NaN if the region is empty in both segmentations.
        """
        inside = np.zeros(len(self.counts), dtype=bool)
        inside[[1 + self.labels.index(label) for label in labels_of(region)]] = True
        tp = int(self.counts[np.ix_(inside, inside)].sum())
        fp = int(self.counts[np.ix_(~inside, inside)].sum())
        fn = int(self.counts[np.ix_(inside, ~inside)].sum())
        tn = int(self.counts[np.ix_(~inside, ~inside)].sum())
        in_neither = tp + fp + fn == 0
        return {
            "Dice": math.nan if in_neither else 2 * tp / (2 * tp + fp + fn),
            "IoU": math.nan if in_neither else tp / (tp + fp + fn),
            "FP": fp,
            "TP": tp,
            "FN": fn,
            "TN": tn,
            "n_pred": fp + tp,
            "n_ref": fn + tp,
        }

    def _codes(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # NaN and infinity become numbers that differ from them
            whole = values.astype(np.int64)
        if values.dtype.kind == "f" and (whole != values).any():
            if not np.isfinite(values).all():
                raise DataError("a segmentation has values that are NaN or infinite")
            raise DataError(
                f"a segmentation has values that are not whole numbers, such as {values[whole != values][0]}"
            )
        whole += 1
        return self._code_of_value.take(whole, mode="clip")


def labels_of(region: LabelOrRegion) -> Sequence[int]:
    """Labels of a label or region."""
    return (region,) if np.isscalar(region) else tuple(region)

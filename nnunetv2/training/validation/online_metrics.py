"""Hard true/false positive counts during training, and the resulting pseudo Dice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from nnunetv2.utilities.label_handling.label_handling import LabelManager


class HardCounts(NamedTuple):
    """Voxel counts of one batch, one entry per foreground class or region, float64."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray


def count(logits: torch.Tensor, target: torch.Tensor | list[torch.Tensor], labels: LabelManager) -> HardCounts:
    """Counts with `count_regions` or `count_labels`, depending on the dataset's labels.

    Args:
        target: of a list, the first entry (full resolution) is used.
    """
    target = target[0] if isinstance(target, list) else target
    if labels.has_regions:
        return count_regions(logits, target, has_ignore_mask=labels.has_ignore_label)
    return count_labels(logits, target, labels.ignore_label)


def count_labels(logits: torch.Tensor, target: torch.Tensor, ignore_label: int | None = None) -> HardCounts:
    """Counts per foreground class for plain labels; background (class 0) is excluded.

    Args:
        logits: (B, K, *spatial); the largest decides.
        target: (B, 1, *spatial) whole numbers 0..K-1, or `ignore_label`. Further channels are not read.
        ignore_label: voxels with this value are not counted.
    """
    num_classes = logits.shape[1]
    predicted = logits.argmax(1).flatten()
    expected = target[:, 0].flatten().long()
    if ignore_label is not None:  # a row of its own, as selecting voxels would make the host wait for their number
        expected = torch.where(expected == ignore_label, num_classes, expected)
    joint = _histogram(expected * num_classes + predicted, (num_classes + 1) * num_classes)
    joint = joint.reshape(-1, num_classes)[:num_classes]  # (expected, predicted)
    confusion = joint.cpu().numpy().astype(np.float64)
    hits = confusion.diagonal()
    return HardCounts(hits[1:], (confusion.sum(0) - hits)[1:], (confusion.sum(1) - hits)[1:])


def count_regions(logits: torch.Tensor, target: torch.Tensor, has_ignore_mask: bool = False) -> HardCounts:
    """Counts per region; regions may overlap, so each is decided by its own sigmoid (> 0.5).

    Args:
        logits: (B, R, *spatial).
        target: (B, R, *spatial) membership (bool or 0/1); with `has_ignore_mask` one more channel that is true
            where a voxel is ignored. Further channels are not read.
    """
    predicted, num_regions = logits > 0, logits.shape[1]
    expected = target[:, :num_regions].bool()
    counted = torch.ones_like(expected[:, :1])
    if has_ignore_mask:
        counted = ~target[:, num_regions : num_regions + 1].bool()
    axes = (0, *range(2, logits.ndim))

    cases = (predicted & expected, predicted & ~expected, ~predicted & expected)
    voxels = torch.stack([(case & counted).sum(axes) for case in cases])
    return HardCounts(*voxels.cpu().numpy().astype(np.float64))


def pseudo_dice(true_positives: np.ndarray, false_positives: np.ndarray, false_negatives: np.ndarray) -> list[float]:
    """Dice per class from summed counts; NaN for a class that neither occurs nor is predicted."""
    sizes = 2 * np.asarray(true_positives, dtype=np.float64) + false_positives + false_negatives
    with np.errstate(invalid="ignore"):
        return (2 * np.asarray(true_positives, dtype=np.float64) / sizes).tolist()


def mean_of_defined(values: list[float]) -> float:
    """Mean without NaN entries; NaN if all are."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _histogram(values: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Numbers of occurrences of 0 to num_bins - 1, int64."""
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=num_bins)
    # `bincount` would make the host wait for the largest value.
    return values.new_zeros(num_bins).scatter_add_(0, values, torch.ones_like(values))

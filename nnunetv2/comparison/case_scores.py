"""Score several predictions of one case against its reference, which is read only once."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.mask_pair import Counts, MaskPair
from nnunetv2.comparison.metric import COMPUTED, METRICS, Metric
from nnunetv2.errors import DataError
from nnunetv2.evaluation.confusion import LabelOrRegion, labels_of
from nnunetv2.evaluation.evaluate_predictions import confusion_of_pair
from nnunetv2.imageio.channel_grid import ALLOW_MISMATCH
from nnunetv2.imageio.checked_reading import read_seg
from nnunetv2.imageio.geometry import mismatch_is_allowed, placement_differences, spacings_agree

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

logger = logging.getLogger(__name__)

_MOST_NAMED = 5  # unexpected values listed in an error message
_MOST_COUNTED = 2**16  # widest range of labels for which counting beats sorting

Box = tuple[slice, ...]


@dataclass(frozen=True)
class PairScores:
    """Scores of one prediction against its reference; sequences follow the order of the classes.

    Empty masks are resolved later (`empty_masks`), so another policy needs no new scoring.
    """

    values: Mapping[str, tuple[float, ...]]
    """per metric; NaN where an empty mask leaves it undefined"""
    num_reference: tuple[int, ...]
    """voxels of each class in the reference, ignored voxels excluded"""
    num_predicted: tuple[int, ...]
    voxel_volume: float
    """in mm^3, or in mm^2 for a 2D image"""
    num_dimensions: int
    """2 or 3"""
    diagonal: float
    """corner to corner of the image, in mm"""


@dataclass(frozen=True)
class _Segmentation:
    """Integer labels on a 2D or 3D grid."""

    labels: np.ndarray
    spacing: tuple[float, ...]
    boxes: Sequence[Box | None]
    """bounding boxes of the labels 1, 2, ...; None for a label that does not occur"""


def score_case(
    reference_file: Path,
    prediction_files: Sequence[Path],
    reader: BaseReaderWriter,
    classes: Sequence[LabelOrRegion],
    metrics: Sequence[str],
    tolerance: float = 1.0,
    ignore_label: int | None = None,
) -> list[PairScores]:
    """Score predictions of one image against its reference.

    An image with a single slice is treated as 2D: distances and areas are measured within the slice.

    Args:
        reference_file, prediction_files: segmentations on the same voxel grid.
        reader: reads their file format.
        classes: foreground labels, or tuples of labels that form one region.
        metrics: names of registered metrics.
        tolerance: for NSD, in mm.
        ignore_label: voxels with this label in the reference count as background in both masks.

    Returns:
        Scores of each prediction, in the given order.

    Raises:
        DataError: a file cannot be read, holds values that are not labels of the dataset, or lies on another grid
            than the reference; or a metric returns a value that is not finite.
    """
    known = {0, *(label for region in classes for label in labels_of(region))}
    if ignore_label is not None:
        known.add(ignore_label)
    reference, properties = read_seg(reader, str(reference_file))
    expected = _segmentation(reference, properties["spacing"], known, reference_file)
    scores = []
    for path in prediction_files:
        prediction, of_prediction = read_seg(reader, str(path))
        if prediction.shape != reference.shape:
            shapes = f"shape {prediction.shape[1:]} against {reference.shape[1:]} voxels"
            raise DataError(_not_on_grid(shapes, path, reference_file))
        _require_same_grid(of_prediction, properties, path, reference_file)
        predicted = _segmentation(prediction, properties["spacing"], known, path)
        scores.append(_pair_scores(predicted, expected, classes, metrics, tolerance, ignore_label))
    return scores


def _segmentation(array: np.ndarray, spacing: Sequence[float], known: Collection[int], path: Path) -> _Segmentation:
    from scipy.ndimage import find_objects

    with np.errstate(invalid="ignore"):  # values that do not convert are caught by the comparison below
        labels = array[0].astype(np.int32)
    if (labels != array[0]).any():
        raise DataError(f"{path} has values that are not whole numbers; a segmentation holds labels")
    unknown = sorted(_values_in(labels) - set(known))
    if unknown:
        some = ", ".join(map(str, unknown[:_MOST_NAMED])) + (", ..." if len(unknown) > _MOST_NAMED else "")
        raise DataError(
            f"{path} has the values {some}, which are no labels of the dataset; accepted are "
            f"{', '.join(map(str, sorted(known)))}"
        )
    if len(labels) == 1:
        # A single slice: dropping the axis keeps distances within the slice.
        labels, spacing = labels[0], spacing[1:]
    return _Segmentation(labels, tuple(float(length) for length in spacing), find_objects(labels, max(known)))


def _values_in(labels: np.ndarray) -> set[int]:
    """Distinct integers of an array; counts them if their range is small, which is faster than sorting."""
    lowest = int(labels.min())
    if int(labels.max()) - lowest > _MOST_COUNTED:
        return set(np.unique(labels).tolist())
    return set((np.flatnonzero(np.bincount((labels - lowest).ravel())) + lowest).tolist())


def _require_same_grid(prediction: dict, reference: dict, prediction_file: Path, reference_file: Path) -> None:
    differences = placement_differences(prediction, reference)
    if not spacings_agree(prediction, reference):
        differences.insert(0, f"spacing {list(prediction['spacing'])} against {list(reference['spacing'])} mm")
    if not differences:
        return
    message = _not_on_grid(" and ".join(differences), prediction_file, reference_file)
    if not mismatch_is_allowed():
        raise DataError(f"{message}; if the voxels do correspond, allow it with {ALLOW_MISMATCH}=1")
    logger.warning(message)


def _not_on_grid(difference: str, prediction_file: Path, reference_file: Path) -> str:
    return f"The prediction {prediction_file} does not lie on the grid of the reference {reference_file}: {difference}"


def _pair_scores(
    prediction: _Segmentation,
    reference: _Segmentation,
    classes: Sequence[LabelOrRegion],
    metrics: Sequence[str],
    tolerance: float,
    ignore_label: int | None,
) -> PairScores:
    confusion = confusion_of_pair(reference.labels, prediction.labels, classes, ignore_label)
    counts = [confusion.metrics(region) for region in classes]
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for region, of_class in zip(classes, counts, strict=True):
        pair = MaskPair(
            partial(_masks_of, region, prediction, reference, ignore_label),
            Counts(*(of_class[name] for name in ("TP", "FP", "FN", "TN"))),
            reference.spacing,
            tolerance,
        )
        for name in metrics:
            values[name].append(_value(METRICS[name], pair))
    return PairScores(
        values={name: tuple(each) for name, each in values.items()},
        num_reference=tuple(each["n_ref"] for each in counts),
        num_predicted=tuple(each["n_pred"] for each in counts),
        voxel_volume=math.prod(reference.spacing),
        num_dimensions=len(reference.spacing),
        diagonal=math.hypot(*np.multiply(reference.labels.shape, reference.spacing).tolist()),
    )


def _value(metric: Metric, pair: MaskPair) -> float:
    """Compute the metric, or return NaN where the empty-mask rule ignores the computed value."""
    counts, rule = pair.counts, metric.empty_masks
    if counts.true_positive + counts.false_negative == 0:
        is_computed = rule.absent == COMPUTED
    else:
        is_computed = rule.missed == COMPUTED or counts.true_positive + counts.false_positive > 0
    if not is_computed:
        return math.nan
    value = float(metric.compute(pair))
    if not math.isfinite(value):
        raise DataError(f"The metric {metric.name} computed {value}; a value has to be a finite number")
    return value


def _masks_of(
    region: LabelOrRegion, prediction: _Segmentation, reference: _Segmentation, ignore_label: int | None
) -> tuple[np.ndarray, np.ndarray]:
    # Cropping to both masks does not change the distances, which take far less time in the box.
    box = _joint_box([each.boxes[label - 1] for each in (prediction, reference) for label in labels_of(region)])
    expected = reference.labels[box]
    is_counted = True if ignore_label is None else expected != ignore_label
    return (
        np.isin(prediction.labels[box], labels_of(region)) & is_counted,
        np.isin(expected, labels_of(region)) & is_counted,
    )


def _joint_box(boxes: Sequence[Box | None]) -> Box:
    """The box that encloses all boxes; empty if every one is None."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),)
    return tuple(
        slice(min(one.start for one in axis), max(one.stop for one in axis)) for axis in zip(*present, strict=True)
    )

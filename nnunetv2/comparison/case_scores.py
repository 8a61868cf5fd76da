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

from nnunetv2.comparison.among_classes import among_classes
from nnunetv2.comparison.mask_pair import Counts, MaskPair
from nnunetv2.comparison.metric import COMPUTED, METRICS, Metric
from nnunetv2.errors import DataError
from nnunetv2.evaluation.confusion import LabelOrRegion, labels_of
from nnunetv2.evaluation.evaluate_predictions import confusion_of_pair
from nnunetv2.evaluation.field_of_view import read_field
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
    among: Sequence[LabelOrRegion] = (),
    field_file: Path | None = None,
    known_labels: Collection[int] | None = None,
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
        among: those of the classes that the metrics "among classes" tell apart.
        field_file: field of view; voxels outside of it are ignored like those with the ignore label.
        known_labels: values that the files may have; None for those of the classes and the ignore label.

    Returns:
        Scores of each prediction, in the given order.

    Raises:
        DataError: a file cannot be read, holds values that are not labels of the dataset, or lies on another grid
            than the reference; or a metric returns a value that is not finite.
    """
    known = labels_in(classes, ignore_label) if known_labels is None else known_labels
    reference, properties = read_seg(reader, str(reference_file))
    expected = _segmentation(reference, properties["spacing"], known, reference_file)
    is_inside = (
        None if field_file is None else read_field(field_file, reference.shape[1:]).reshape(expected.labels.shape)
    )
    rules = _Rules(tuple(classes), tuple(metrics), tolerance, ignore_label, tuple(among))
    scores = []
    for path in prediction_files:
        prediction, of_prediction = read_seg(reader, str(path))
        if prediction.shape != reference.shape:
            shapes = f"shape {prediction.shape[1:]} against {reference.shape[1:]} voxels"
            raise DataError(_not_on_grid(shapes, path, reference_file))
        _require_same_grid(of_prediction, properties, path, reference_file)
        predicted = _segmentation(prediction, properties["spacing"], known, path)
        scores.append(_pair_scores(predicted, expected, rules, is_inside))
    return scores


def score_arrays(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    classes: Sequence[LabelOrRegion],
    metrics: Sequence[str],
    tolerance: float = 1.0,
    ignore_label: int | None = None,
    among: Sequence[LabelOrRegion] = (),
    is_inside: np.ndarray | None = None,
) -> PairScores:
    """Score arrays (1, Z, Y, X) as `score_case` scores files; values that are no label of a class are background.

    Args:
        is_inside: boolean (Z, Y, X), the field of view; None is the whole image.
    """
    known = labels_in(classes, ignore_label)
    expected, predicted = (_on_grid(array[0].astype(np.int32), spacing, known) for array in (reference, prediction))
    if is_inside is not None:
        is_inside = is_inside.reshape(expected.labels.shape)
    rules = _Rules(tuple(classes), tuple(metrics), tolerance, ignore_label, tuple(among))
    return _pair_scores(predicted, expected, rules, is_inside)


def labels_in(classes: Sequence[LabelOrRegion], ignore_label: int | None) -> frozenset[int]:
    """Labels of the classes, background and ignore label."""
    ignored = [] if ignore_label is None else [ignore_label]
    return frozenset({0, *(label for region in classes for label in labels_of(region)), *ignored})


def _segmentation(array: np.ndarray, spacing: Sequence[float], known: Collection[int], path: Path) -> _Segmentation:
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
    return _on_grid(labels, spacing, known)


def _on_grid(labels: np.ndarray, spacing: Sequence[float], known: Collection[int]) -> _Segmentation:
    from scipy.ndimage import find_objects

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


@dataclass(frozen=True)
class _Rules:
    """What is computed; see the arguments of `score_case`."""

    classes: Sequence[LabelOrRegion]
    metrics: Sequence[str]
    tolerance: float
    ignore_label: int | None
    among: Sequence[LabelOrRegion]


def _pair_scores(
    prediction: _Segmentation, reference: _Segmentation, rules: _Rules, is_inside: np.ndarray | None
) -> PairScores:
    confusion = confusion_of_pair(reference.labels, prediction.labels, rules.classes, rules.ignore_label, is_inside)
    counts = [confusion.metrics(region) for region in rules.classes]
    among = among_classes(confusion, rules.among) if rules.among else None
    is_counted = _counted(reference.labels, rules.ignore_label, is_inside)
    values: dict[str, list[float]] = {name: [] for name in rules.metrics}
    for region, of_class in zip(rules.classes, counts, strict=True):
        pair = MaskPair(
            partial(_masks_of, region, prediction, reference, is_counted),
            Counts(*(of_class[name] for name in ("TP", "FP", "FN", "TN"))),
            reference.spacing,
            rules.tolerance,
            among.seen_from(rules.among.index(region)) if region in rules.among else None,
        )
        for name in rules.metrics:
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
    """Compute the metric, or return NaN where its empty-mask rule ignores the value or the case does not count."""
    counts, rule = pair.counts, metric.empty_masks
    if counts.true_positive + counts.false_negative == 0:
        is_computed = rule.absent == COMPUTED
    else:
        is_computed = rule.missed == COMPUTED or counts.true_positive + counts.false_positive > 0
    if not (is_computed and metric.is_defined(pair)):
        return math.nan
    value = float(metric.compute(pair))
    if not math.isfinite(value):
        raise DataError(f"The metric {metric.name} computed {value}; a value has to be a finite number")
    return value


def _counted(reference: np.ndarray, ignore_label: int | None, is_inside: np.ndarray | None) -> np.ndarray | None:
    """Voxels that count, boolean in the shape of the reference; None if all do."""
    if ignore_label is None:
        return is_inside
    is_labelled = reference != ignore_label
    return is_labelled if is_inside is None else is_labelled & is_inside


def _masks_of(
    region: LabelOrRegion, prediction: _Segmentation, reference: _Segmentation, is_counted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    # Cropping to both masks does not change distances, skeletons and components, which take far less time in the box.
    box = (slice(None),)  # the background has no box
    if 0 not in labels_of(region):
        box = _joint_box([each.boxes[label - 1] for each in (prediction, reference) for label in labels_of(region)])
    masks = [np.isin(each.labels[box], labels_of(region)) for each in (prediction, reference)]
    if is_counted is not None:
        masks = [mask & is_counted[box] for mask in masks]
    return masks[0], masks[1]


def _joint_box(boxes: Sequence[Box | None]) -> Box:
    """The box that encloses all boxes; empty if every one is None."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),)
    return tuple(
        slice(min(one.start for one in axis), max(one.stop for one in axis)) for axis in zip(*present, strict=True)
    )

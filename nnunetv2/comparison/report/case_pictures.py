"""Pictures of single cases: the image, the reference, and what each method made of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.slice_panels import choose_window, ground_png, layer_png
from nnunetv2.comparison.report.worst_cases import ChosenCase, shown_runs, worst_cases
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.scores import Run
from nnunetv2.errors import DataError

if TYPE_CHECKING:
    from nnunetv2.evaluation.confusion import LabelOrRegion
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Panel:
    """One segmentation of a case."""

    title: str
    """method, or what else is shown"""
    layer: bytes | None
    """transparent PNG to lay over the image; None: the image alone"""
    note: str = ""
    is_method: bool = False


@dataclass(frozen=True)
class CasePicture:
    """One slice of a case, with a panel for each method."""

    case: str
    reason: str
    where: str
    ground: bytes
    """PNG of the image"""
    size: tuple[int, int]
    """width and height in pixels of all panels"""
    panels: tuple[Panel, ...]
    classes: tuple[tuple[int, str], ...]
    """positions, from 0, and names of the classes that are seen"""


def worst_case_pictures(
    comparison: Comparison,
    images: Mapping[str, Sequence[Path]],
    references: Mapping[str, Path],
    reader_writer: BaseReaderWriter,
    classes: Mapping[str, LabelOrRegion],
    ignore_label: int | None = None,
) -> list[CasePicture]:
    """Pictures of the cases that `worst_cases` chooses; see `case_pictures`."""
    chosen = worst_cases(comparison)
    runs = shown_runs(comparison.scores)
    return case_pictures(chosen, images, references, runs, reader_writer, classes, ignore_label)


def case_pictures(
    cases: Sequence[ChosenCase],
    images: Mapping[str, Sequence[Path]],
    references: Mapping[str, Path],
    runs: Sequence[Run],
    reader_writer: BaseReaderWriter,
    classes: Mapping[str, LabelOrRegion],
    ignore_label: int | None = None,
) -> list[CasePicture]:
    """Draws the slice of each case in which the runs differ most from the reference.

    Args:
        images: files of each case, one per channel; the first is shown, in colour if it holds three channels and is the
            only one. Cases without image are drawn on a plain ground.
        references: of each case.
        runs: one per method, in the order of the panels.
        classes: labels or regions by their names. Where regions overlap, the one of fewer labels is on top.
        ignore_label: in the reference; such voxels are shown in none of the segmentations.

    Raises:
        DataError: a segmentation cannot be read.
    """
    return [_picture(case, images, references, runs, reader_writer, classes, ignore_label) for case in cases]


def _picture(
    chosen: ChosenCase,
    images: Mapping[str, Sequence[Path]],
    references: Mapping[str, Path],
    runs: Sequence[Run],
    reader_writer: BaseReaderWriter,
    classes: Mapping[str, LabelOrRegion],
    ignore_label: int | None,
) -> CasePicture:
    labels, properties = reader_writer.read_seg(str(references[chosen.case]))
    is_ignored = np.zeros(labels.shape[1:], dtype=bool) if ignore_label is None else labels[0] == ignore_label
    reference = _positions(labels[0], classes, is_ignored)
    predictions = [
        _positions(reader_writer.read_seg(str(run.predictions[chosen.case]))[0][0], classes, is_ignored) for run in runs
    ]
    window = choose_window(reference, predictions, properties["spacing"])
    image = _image(images.get(chosen.case, ()), reader_writer, reference.shape)
    outline = window.cut(reference)
    shown = [outline, *(window.cut(prediction) for prediction in predictions)]
    seen = sorted({int(position) - 1 for segmentation in shown for position in np.unique(segmentation) if position})
    names = list(classes)
    panels = [
        Panel("Image", None) if image is not None else Panel("No image", None),
        Panel("Reference", layer_png(outline, None, window)),
    ]
    for run, segmentation in zip(runs, shown[1:], strict=True):
        note = chosen.scores.get(run.method, "")
        panels.append(Panel(run.method, layer_png(segmentation, outline, window), note, is_method=True))
    return CasePicture(
        case=chosen.case,
        reason=chosen.reason,
        where="" if len(reference) == 1 else f"slice {window.index + 1} of {len(reference)}",
        ground=ground_png(None if image is None else window.cut(image), window),
        size=window.size,
        panels=tuple(panels),
        classes=tuple((position, names[position]) for position in seen),
    )


def _positions(labels: np.ndarray, classes: Mapping[str, LabelOrRegion], is_ignored: np.ndarray) -> np.ndarray:
    """(Z, Y, X) labels -> positions of the classes from 1, 0 where there is none."""
    members = [np.atleast_1d(label) for label in classes.values()]
    positions = np.zeros(labels.shape, dtype=np.int16)
    for position in sorted(range(len(members)), key=lambda place: -len(members[place])):
        positions[np.isin(labels, members[position])] = position + 1
    positions[is_ignored] = 0
    return positions


def _image(files: Sequence[Path], reader_writer: BaseReaderWriter, shape: tuple[int, ...]) -> np.ndarray | None:
    """(Z, Y, X), or (3, Z, Y, X) of a colour image; None where there is none that fits the segmentations."""
    if not files:
        return None
    try:
        image = reader_writer.read_images((str(files[0]),))[0]
    except DataError as err:
        logger.warning("A case is shown without its image: %s", err)
        return None
    if image.shape[1:] != shape:
        logger.warning(
            "%s has shape %s, its reference %s: the case is shown without it", files[0], image.shape[1:], shape
        )
        return None
    return image if len(image) == 3 and len(files) == 1 else image[0]

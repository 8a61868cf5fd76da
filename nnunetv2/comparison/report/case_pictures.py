"""Pictures of the cases worth a look: image, reference, and the segmentation of each method."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.formatting import score, with_unit
from nnunetv2.comparison.report.slice_panels import choose_window, ground_png, layer_png
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.scores import Run, ScoreTable
from nnunetv2.comparison.statistics.trainings import distinct_runs
from nnunetv2.errors import DataError

if TYPE_CHECKING:
    from nnunetv2.evaluation.confusion import LabelOrRegion
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

MOST_CASES = 10  # pictures per report, by default

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Panel:
    """One segmentation of a case."""

    title: str
    """method, or what else the panel shows"""
    layer: bytes | None
    """transparent PNG overlay; None shows the image alone"""
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
    """width and height of each panel, in pixels"""
    panels: tuple[Panel, ...]
    classes: tuple[tuple[int, str], ...]
    """index (from 0) and name of each visible class"""


@dataclass(frozen=True)
class ChosenCase:
    """A case to show, with the reason."""

    case: str
    reason: str
    scores: Mapping[str, str]
    """score of each method's shown run as text, with the mean if the method has several trainings"""


def worst_case_pictures(
    comparison: Comparison,
    images: Mapping[str, Sequence[Path]],
    references: Mapping[str, Path],
    reader_writer: BaseReaderWriter,
    classes: Mapping[str, LabelOrRegion],
    ignore_label: int | None = None,
) -> list[CasePicture]:
    """Draw the cases that `worst_cases` selects; see `case_pictures`."""
    chosen = worst_cases(comparison)
    runs = shown_runs(comparison.scores)
    lacks = comparison.scores.lacks
    return case_pictures(chosen, images, references, runs, reader_writer, classes, ignore_label, lacks)


def case_pictures(
    cases: Sequence[ChosenCase],
    images: Mapping[str, Sequence[Path]],
    references: Mapping[str, Path],
    runs: Sequence[Run],
    reader_writer: BaseReaderWriter,
    classes: Mapping[str, LabelOrRegion],
    ignore_label: int | None = None,
    lacks: Mapping[str, Collection[str]] | None = None,
) -> list[CasePicture]:
    """Draw, for each case, the slice in which the runs differ most from the reference.

    Args:
        images: files of each case, one per channel. The first is shown, in colour if it is the only one and has three
            channels. Cases without an image get a plain background.
        references: reference file of each case.
        runs: one per method, in the order of the panels.
        classes: labels or regions by name. Where regions overlap, the one with fewer labels is drawn on top.
        ignore_label: in the reference; its voxels are hidden in every segmentation.
        lacks: classes that a method does not know, by method; they are not drawn.

    Raises:
        DataError: a segmentation cannot be read.
    """
    own = [
        {name: region for name, region in classes.items() if name not in (lacks or {}).get(run.method, ())}
        for run in runs
    ]
    return [_picture(case, images, references, runs, reader_writer, classes, own, ignore_label) for case in cases]


def _picture(
    chosen: ChosenCase,
    images: Mapping[str, Sequence[Path]],
    references: Mapping[str, Path],
    runs: Sequence[Run],
    reader_writer: BaseReaderWriter,
    classes: Mapping[str, LabelOrRegion],
    classes_of_runs: Sequence[Mapping[str, LabelOrRegion]],
    ignore_label: int | None,
) -> CasePicture:
    labels, properties = reader_writer.read_seg(str(references[chosen.case]))
    is_ignored = np.zeros(labels.shape[1:], dtype=bool) if ignore_label is None else labels[0] == ignore_label
    names = list(classes)
    reference = _positions(labels[0], classes, names, is_ignored)
    predictions = [
        _positions(reader_writer.read_seg(str(run.predictions[chosen.case]))[0][0], own, names, is_ignored)
        for run, own in zip(runs, classes_of_runs, strict=True)
    ]
    window = choose_window(reference, predictions, properties["spacing"])
    image = _image(images.get(chosen.case, ()), reader_writer, reference.shape)
    outline = window.cut(reference)
    shown = [outline, *(window.cut(prediction) for prediction in predictions)]
    seen = sorted({int(position) - 1 for segmentation in shown for position in np.unique(segmentation) if position})
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


def _positions(
    labels: np.ndarray, classes: Mapping[str, LabelOrRegion], names: Sequence[str], is_ignored: np.ndarray
) -> np.ndarray:
    """Map (Z, Y, X) labels to the positions of their classes in `names`, counted from 1; 0 is background."""
    members = {name: np.atleast_1d(label) for name, label in classes.items()}
    # Large regions first, so that the regions inside them stay visible.
    positions = np.zeros(labels.shape, dtype=np.int16)
    for name in sorted(members, key=lambda name: -len(members[name])):
        positions[np.isin(labels, members[name])] = names.index(name) + 1
    positions[is_ignored] = 0
    return positions


def _image(files: Sequence[Path], reader_writer: BaseReaderWriter, shape: tuple[int, ...]) -> np.ndarray | None:
    """(Z, Y, X) image, or (3, Z, Y, X) if it is in colour; None if it is missing or does not match the segmentation."""
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


def shown_runs(table: ScoreTable) -> list[Run]:
    """The first run of each method."""
    return [table.runs[table.runs_of(method)[0]] for method in table.methods]


def worst_cases(comparison: Comparison, most: int = MOST_CASES) -> list[ChosenCase]:
    """Alternate between the cases with the worst mean score and those in which the methods disagree most.

    Scores are those of the primary metric, averaged over classes and over the trainings of a method. Ties keep the
    order of the case names.
    """
    metric, table = comparison.settings.primary, comparison.scores
    scores, unit = table.case_scores(metric.name), table.length_unit
    trainings = {method: distinct_runs(table, method) for method in table.methods_of(None)}
    by_method = np.stack([scores[positions].mean(axis=0) for positions in trainings.values()])
    is_repeated = any(len(positions) > 1 for positions in trainings.values())
    over = "methods and trainings" if is_repeated else "the methods"
    each = ", each the mean over its trainings" if is_repeated else ""
    counts = np.flatnonzero(~np.isnan(by_method).any(axis=0))
    means, ranges = by_method.mean(axis=0), np.ptp(by_method, axis=0)
    badness = -means if metric.higher_is_better else means
    lowest = [
        (number, f"{metric.name} {with_unit(means[number], metric.name, unit)}, mean over {over}: among the worst")
        for number in sorted(counts, key=lambda number: -badness[number])
    ]
    apart = [
        (
            number,
            f"Methods {with_unit(ranges[number], metric.name, unit)} apart in {metric.name}{each}: among the furthest",
        )
        for number in sorted(counts, key=lambda number: -ranges[number])
        if ranges[number] > 0
    ]
    chosen: dict[int, str] = {}
    # A case in both lists appears once, with its first reason.
    for entry in chain.from_iterable(zip_longest(lowest, apart)):
        if entry is not None and len(chosen) < most:
            chosen.setdefault(int(entry[0]), entry[1])
    return [
        ChosenCase(table.cases[number], reason, _scores_in_words(comparison, scores[:, number], trainings))
        for number, reason in chosen.items()
    ]


def _scores_in_words(
    comparison: Comparison, scores: np.ndarray, trainings: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """Score of each method's shown run, followed by the mean if the method has several trainings.

    Args:
        scores: (R,) of the runs in one case.
        trainings: indices of the distinct runs of each method that has all averaged classes; others get no text.
    """
    metric = comparison.settings.metrics[0]
    texts = {}
    for run in shown_runs(comparison.scores):
        if run.method not in trainings:
            continue
        positions = trainings[run.method]
        text = f"{metric} {with_unit(float(scores[positions[0]]), metric, comparison.scores.length_unit)}"
        if len(positions) > 1:
            which = f"run {run.number + 1}" if run.seed is None else f"seed {run.seed}"
            text += f", {which}; mean {score(float(scores[positions].mean()), metric)}"
        texts[run.method] = text
    return texts

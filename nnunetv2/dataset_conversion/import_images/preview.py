"""Draw the outline of each class on some pictures, to see whether labels and pictures belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2.dataset_conversion.import_images.case_conversion import ENDING, NUM_COLOURS, write_png
from nnunetv2.dataset_conversion.import_images.case_record import CaseRecord
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST
from nnunetv2.dataset_conversion.import_images.suspicions import Warned
from nnunetv2.imageio.pictures import read_picture
from nnunetv2.utilities.crossval_split import SEED
from nnunetv2.utilities.overlays.image_overlay import color_cycle, hex_to_rgb

FOLDER = "preview"

_WORST = 3  # cases per warning


def draw_previews(
    folder: Path, records: Sequence[CaseRecord], number: int, warned: Sequence[Warned], colours: Mapping[int, int]
) -> int:
    """Draws cases into `FOLDER`: a seeded choice, and the worst three of each warning.

    Args:
        folder: the dataset.
        records: of the new cases.
        number: of cases that are chosen by chance.
        colours: 0xrrggbb of labels; others have those of `nnUNetv2_plot_overlay_pngs`.

    Returns:
        The number of pictures.
    """
    labelled = [record for record in records if record.pixels]
    order = np.random.RandomState(SEED).permutation(len(labelled))
    worst = {case for each in warned for case in each.cases[:_WORST]}
    chosen = {labelled[index].case for index in order[:number]} | worst
    drawn = [record for record in labelled if record.case in chosen]
    for record in drawn:
        end = "Ts" if record.part == TEST else "Tr"
        image = _as_colours(folder / f"images{end}", record.case)
        labels = read_picture(folder / f"labels{end}" / f"{record.case}{ENDING}").pixels
        prefix = "test_" if record.part == TEST else ""
        write_png(draw_outlines(image, labels, colours), folder / FOLDER / f"{prefix}{record.case}{ENDING}")
    return len(drawn)


def _as_colours(folder: Path, case: str) -> np.ndarray:
    files = sorted(folder.glob(f"{case}_[0-9][0-9][0-9][0-9]{ENDING}"))
    parts = [read_picture(path).as_shown() for path in files]
    image = parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    return image if image.ndim == NUM_COLOURS else np.repeat(image[..., None], NUM_COLOURS, axis=-1)


def draw_outlines(image: np.ndarray, labels: np.ndarray, colours: Mapping[int, int]) -> np.ndarray:
    """Colours the pixels of each label that have a neighbour (above, below, left or right) of another.

    Args:
        image: (Y, X, 3) uint8.
        labels: (Y, X).
        colours: 0xrrggbb of labels.

    Returns:
        (Y, X, 3) uint8.
    """
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge = np.any([neighbour != labels for neighbour in neighbours], axis=0)
    picture = image.copy()
    for label in np.unique(labels[labels > 0]).tolist():
        picture[edge & (labels == label)] = _colour(label, colours)
    return picture


def _colour(label: int, colours: Mapping[int, int]) -> tuple[int, int, int]:
    code = colours.get(label, 0)
    if code:
        return code >> 16, code >> 8 & 255, code & 255
    return hex_to_rgb(color_cycle[1 + (label - 1) % (len(color_cycle) - 1)])

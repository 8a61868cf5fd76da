"""Read one picture with its labels, check it, and write it as a case."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2.dataset_conversion.import_images.case_record import CaseRecord
from nnunetv2.dataset_conversion.import_images.classes import Classes
from nnunetv2.dataset_conversion.import_images.field_of_view import (
    AUTO,
    bounding_box,
    find_field_of_view,
    read_field_of_view,
)
from nnunetv2.dataset_conversion.import_images.label_sources import LabelSource
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST
from nnunetv2.errors import DataError
from nnunetv2.imageio.pictures import read_picture

ENDING = ".png"
NUM_COLOURS = 3
_DEEP = 257  # 8 to 16 bits


@dataclass(frozen=True)
class Job:
    """One picture to convert; picklable, for worker processes."""

    case: str
    part: str
    image: Path
    source: LabelSource | None
    fov: Path | str | None
    """a mask, `auto` or None"""
    group: str
    root: Path
    """folder to which the recorded names are relative"""


@dataclass(frozen=True)
class Form:
    """What all cases of a dataset have in common."""

    classes: Classes
    is_colour: bool
    bits: int
    """per channel, 8 or 16"""
    outside: str = "ignore"
    """what the label becomes outside of the field of view: `ignore` or `background`"""
    crop_fov: bool = False


@dataclass(frozen=True)
class Converted:
    """A record, and what is worth a note."""

    record: CaseRecord
    notes: tuple[str, ...] = ()
    num_outside: int = 0
    """pixels outside of the field of view"""


def convert_case(job: Job, form: Form, folder: Path | None) -> Converted:
    """Converts a picture and its labels.

    Args:
        folder: the dataset, with imagesTr and so on; None writes nothing.

    Raises:
        DataError: a file is damaged, sizes differ, a colour is unknown, or the mask is the picture itself.
    """
    picture = read_picture(job.image)
    shown = picture.as_shown()
    shape = shown.shape[:2]
    labels, notes, counts = None, [], (0, 0)
    if job.source is not None:
        painted = job.source.paint(shape, job.image)
        if painted.mask is not None and _is_same(shown, painted.mask):
            raise DataError(
                f"The mask of {job.image} ({job.source.files[0]}) is the picture itself; name the folder of masks (-m)"
            )
        labels, counts = painted.labels, (painted.num_snapped, painted.num_overlapping)
        if picture.was_turned and not painted.was_turned:
            notes.append(f"{job.image.name} was turned by its EXIF orientation, and its labels fit the turned picture")
    inside = _field_of_view(job, shown)
    num_outside = 0 if inside is None else int((~inside).sum())
    if labels is not None and inside is not None:
        labels = np.where(inside, labels, form.classes.ignore_label if form.outside == "ignore" else 0)
    y, x, height, width = bounding_box(inside) if form.crop_fov and inside is not None else (0, 0, *shape)
    image = as_form(shown, form)[y : y + height, x : x + width]
    labels = None if labels is None else labels[y : y + height, x : x + width]
    if folder is not None:
        _write(image, labels, job, folder)
    record = CaseRecord(
        case=job.case,
        part=job.part,
        image=_relative(job.image, job.root),
        mask="" if job.source is None else " ".join(_relative(path, job.root) for path in job.source.files),
        fov=_relative(job.fov, job.root) if isinstance(job.fov, Path) else job.fov or "",
        group=job.group,
        image_sha256=_sha256(job.image),
        mask_sha256=_sha256(*(job.source.files if job.source is not None else ())),
        pixels_sha256=hashlib.sha256(repr(shown.shape).encode() + np.ascontiguousarray(shown).tobytes()).hexdigest(),
        height=shape[0],
        width=shape[1],
        crop_y=y,
        crop_x=x,
        crop_height=height,
        crop_width=width,
        snapped=counts[0],
        overlapping=counts[1],
        pixels={} if labels is None else _pixels(labels, form.classes),
    )
    return Converted(record, tuple(notes), num_outside)


def _field_of_view(job: Job, shown: np.ndarray) -> np.ndarray | None:
    if job.fov is None:
        return None
    if job.fov == AUTO:
        return find_field_of_view(shown, job.image)
    return read_field_of_view(Path(job.fov), job.image, shown.shape[:2])


def as_form(shown: np.ndarray, form: Form) -> np.ndarray:
    """Gives a picture the channels and depth of the others: grey is repeated, and 8 bits scaled to 16."""
    if form.is_colour and shown.ndim != NUM_COLOURS:
        shown = np.repeat(shown[..., None], NUM_COLOURS, axis=-1)
    if form.bits == 16 and shown.dtype == np.uint8:  # noqa: PLR2004 - bits
        shown = shown.astype(np.uint16) * _DEEP
    return shown


def _is_same(image: np.ndarray, mask: np.ndarray) -> bool:
    """True if both show the same, and not black all over; rows are compared until one differs."""
    if not image.any():
        return False
    if image.shape != mask.shape:
        colour, grey = (image, mask) if image.ndim == NUM_COLOURS else (mask, image)
        image, mask = colour, np.broadcast_to(grey[..., None], colour.shape)
    return all(bool((row == other).all()) for row, other in zip(image, mask, strict=True))


def _write(image: np.ndarray, labels: np.ndarray | None, job: Job, folder: Path) -> None:
    end = "Ts" if job.part == TEST else "Tr"
    if image.ndim == NUM_COLOURS and image.dtype == np.uint16:
        # Readers of PNG files cut colours to 8 bits, but not grey: one file per channel keeps all.
        for channel in range(NUM_COLOURS):
            write_png(image[..., channel], folder / f"images{end}" / f"{job.case}_{channel:04d}{ENDING}")
    else:
        write_png(image, folder / f"images{end}" / f"{job.case}_0000{ENDING}")
    if labels is not None:
        write_png(as_label_type(labels), folder / f"labels{end}" / f"{job.case}{ENDING}")


def as_label_type(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.uint8 if labels.max(initial=0) <= 255 else np.uint16)  # noqa: PLR2004 - a byte


def write_png(pixels: np.ndarray, path: Path) -> None:
    """Writes grey of 8 or 16 bits, or RGB of 8."""
    import imagecodecs

    path.parent.mkdir(exist_ok=True)
    # One filter for all rows and runs instead of matches: photographs become smaller, in a third of Pillow's time.
    png = imagecodecs.PNG
    encoded = imagecodecs.png_encode(
        np.ascontiguousarray(pixels), level=png.COMPRESSION.SPEED, strategy=png.STRATEGY.RLE, filter=png.FILTER.PAETH
    )
    path.write_bytes(encoded)


def _pixels(labels: np.ndarray, classes: Classes) -> dict[str, int]:
    return {name: int(np.count_nonzero(labels == label)) for name, label in classes.labels.items()}


def _sha256(*paths: Path) -> str:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]
    return " ".join(digests)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name

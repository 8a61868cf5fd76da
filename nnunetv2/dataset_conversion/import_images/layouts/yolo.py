"""YOLO's polygons: `labels/*.txt` with a line `class x1 y1 x2 y2 ...` per object, in shares of width and height."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.dataset_conversion.import_images.classes import Classes, Request, classes_of
from nnunetv2.dataset_conversion.import_images.label_sources import Shape, ShapeSource
from nnunetv2.dataset_conversion.import_images.layouts.layout import (
    PARTS,
    TEST,
    TRAIN,
    Export,
    FoundCase,
    Options,
    Place,
)
from nnunetv2.dataset_conversion.import_images.layouts.yaml_names import DATA_YAML, read_names
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures
from nnunetv2.dataset_conversion.import_images.polygons import polygon_area
from nnunetv2.dataset_conversion.import_images.text_files import read_text
from nnunetv2.errors import DataError, UsageError

_IMAGES, _LABELS = "images", "labels"
_NUMBERS_OF_A_BOX = 4
_FEWEST_NUMBERS = 6


def fits(place: Place) -> bool:
    """True for `labels` with text files beside `images`, and a `data.yaml`."""
    return place.masks is None and (place.images / DATA_YAML).is_file() and bool(_parts(place.images))


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Reads the polygons of every picture, larger ones first, so that smaller ones lie on top.

    Raises:
        DataError: a line is no polygon, or has a class without name.
        UsageError: `--labels` names no classes.
    """
    names = read_names(place.images / DATA_YAML)
    classes, labels = _classes(names, options)
    cases, without = [], []
    for part, images, texts in _parts(place.images):
        for image in list_pictures(images):
            text = texts / f"{image.stem}.txt"
            if part == TEST and not texts.is_dir():
                cases.append(FoundCase(image, image.stem, None, TEST))
                continue
            if not text.is_file():
                without.append(image.name)
            shapes = _shapes(text, labels) if text.is_file() else ()
            cases.append(FoundCase(image, image.stem, ShapeSource(text, shapes, are_relative=True), part))
    warnings = ()
    if without:
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""  # noqa: PLR2004 - shown
        listed = ", ".join(without[:5]) + more
        warnings = (f"{len(without)} pictures without text file count as pictures without object: {listed}",)
    return Export(tuple(cases), classes, warnings=warnings)


def _parts(root: Path) -> list[tuple[str, Path, Path]]:
    """Part, folder of pictures and folder of text files, in each of the orders that tools use."""
    places = [(part, root / _IMAGES / name, root / _LABELS / name) for name, part in PARTS.items()]
    places += [(part, root / name / _IMAGES, root / name / _LABELS) for name, part in PARTS.items()]
    places.append((TRAIN, root / _IMAGES, root / _LABELS))
    found = [each for each in places if list_pictures(each[1])]
    return found if any(any(texts.glob("*.txt")) for _, _, texts in found if texts.is_dir()) else []


def _classes(names: list[str], options: Options) -> tuple[Classes, list[int]]:
    """Classes, and the label of each number; 0 for those that `--labels` leaves out."""
    requests = options.requests or [Request(name, ranges=((n, n),)) for n, name in enumerate(names)]
    classes = classes_of(requests)
    labels = [0] * len(names)
    for request in requests:
        wanted = [n for n, name in enumerate(names) if name in (request.words or (request.name,))]
        if request.ranges:
            wanted = [n for n in range(len(names)) if any(low <= n <= high for low, high in request.ranges)]
        if not wanted:
            listed = ", ".join(f"{name}={n}" for n, name in enumerate(names))
            raise UsageError(f"--labels {request.name} is no class of {DATA_YAML}; it has {listed}")
        for number in wanted:
            labels[number] = classes.labels[request.name]
    return classes, labels


def _shapes(path: Path, labels: list[int]) -> tuple[Shape, ...]:
    shapes = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            shapes.append(_shape(line.split(), labels, f"{path}, line {number}"))
    return tuple(sorted(shapes, key=lambda shape: -polygon_area(shape.polygons[0])))


def _shape(words: list[str], labels: list[int], where: str) -> Shape:
    try:
        number, numbers = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as err:
        raise DataError(f"{where}: {' '.join(words)[:60]!r} is not class x1 y1 x2 y2 ...") from err
    if not 0 <= number < len(labels):
        raise DataError(f"{where}: class {number} has no name; {DATA_YAML} has 0 to {len(labels) - 1}")
    if len(numbers) == _NUMBERS_OF_A_BOX:
        raise DataError(f"{where} is a box, not a polygon; export the dataset for segmentation")
    if len(numbers) < _FEWEST_NUMBERS or len(numbers) % 2:
        raise DataError(f"{where}: a polygon has an x and a y for each of at least three corners")
    if not all(0 <= value <= 1 for value in numbers):
        raise DataError(f"{where}: corners are shares of width and height, from 0 to 1")
    return Shape(labels[number], (tuple(zip(numbers[::2], numbers[1::2], strict=True)),))

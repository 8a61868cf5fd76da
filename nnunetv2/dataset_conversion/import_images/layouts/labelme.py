"""labelme's JSON files, one per picture: polygons, rectangles, circles and masks in `shapes`."""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from dinov3.utils.json_files import read_json
from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Classes, Request
from nnunetv2.dataset_conversion.import_images.label_sources import Shape, ShapeSource
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST, TRAIN, Export, FoundCase, Options, Place
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures
from nnunetv2.dataset_conversion.import_images.polygons import is_coordinate
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.size_limits import require_readable_size

_BACKGROUNDS = ("_background_", BACKGROUND)
_IGNORED = ("__ignore__", IGNORE)
_FEWEST_CORNERS = 3


def fits(place: Place) -> bool:
    files = _files(place)
    return bool(files) and _is_labelme(files[0])


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Reads the shapes of every picture; classes are in alphabetical order unless `--labels` names them.

    Raises:
        DataError: a file is no annotation, or its picture is missing.
        UsageError: `--labels` names a class that no shape has.
    """
    contents = {path: _content(path) for path in _files(place)}
    if not contents:
        raise UsageError(f"There is no JSON file of labelme in {place.masks or place.images}")
    classes, labels = _classes(contents, options)
    cases, skipped = [], Counter()
    for path, content in contents.items():
        image = _picture(path, content, place.images)
        shapes = []
        for number, drawn in enumerate(content["shapes"]):
            shape = _shape(drawn, labels, f"{path}, shape {number}")
            if shape is None:
                skipped[str(drawn.get("shape_type"))] += 1
            else:
                shapes.append(shape)
        cases.append(FoundCase(image, image.stem, ShapeSource(path, tuple(shapes), _size(content)), TRAIN))
    unlabelled = [path for path in list_pictures(place.images) if path not in {case.image for case in cases}]
    cases += _without_shapes(unlabelled, options)
    kinds = ", ".join(f"{count} of type {kind}" for kind, count in sorted(skipped.items()))
    warnings = (f"shapes that have no area are left out: {kinds}",) if skipped else ()
    return Export(tuple(cases), classes, warnings=warnings)


def _files(place: Place) -> list[Path]:
    root = place.masks if place.masks is not None else place.images
    return sorted(path for path in root.glob("*.json") if path.name[0] != ".") if root.is_dir() else []


def _is_labelme(path: Path) -> bool:
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(each, dict) for each in shapes):
        raise DataError(f'{path} is no file of labelme: it has no list "shapes"')
    for number, shape in enumerate(shapes):
        if not isinstance(shape.get("label"), str) or not shape["label"]:
            raise DataError(f"{path}, shape {number}, has no label")
    return content


def _classes(contents: Mapping[Path, dict], options: Options) -> tuple[Classes, dict[str, int]]:
    """Classes, and the label of each name that shapes have; 0 for those that `--labels` leaves out."""
    found = sorted({shape["label"] for content in contents.values() for shape in content["shapes"]})
    if not found:
        raise DataError(f"None of the {len(contents)} JSON files has a shape")
    requests = options.requests or [Request(name) for name in found if name not in (*_BACKGROUNDS, *_IGNORED)]
    names = tuple(request.name for request in requests if request.name not in (BACKGROUND, IGNORE))
    if not names:
        raise DataError(f"The shapes have no class besides {', '.join(found)}")
    has_ignore = any(name in _IGNORED for name in found) or any(request.name == IGNORE for request in requests)
    classes = Classes(names, has_ignore)
    labels = dict.fromkeys(found, 0) | {name: classes.ignore_label for name in found if name in _IGNORED}
    for request in requests:
        wanted = request.words or (request.name,)
        if missing := [name for name in wanted if name not in labels and request.name not in (BACKGROUND, IGNORE)]:
            raise UsageError(f"--labels names {', '.join(missing)}, which no shape has; there are {', '.join(found)}")
        labels |= {name: classes.labels[request.name] for name in wanted if name in labels}
    return classes, labels


def _picture(path: Path, content: Mapping[str, Any], folder: Path) -> Path:
    named = str(content.get("imagePath") or "").replace("\\", "/")
    for candidate in (path.parent / named, folder / Path(named).name):
        if named and candidate.is_file():
            return candidate
    beside = [each for each in (*list_pictures(path.parent), *list_pictures(folder)) if each.stem == path.stem]
    if beside:
        return beside[0]
    raise DataError(f"{path} belongs to {named or 'no picture'}, which is neither beside it nor in {folder}")


def _size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _without_shapes(pictures: list[Path], options: Options) -> list[FoundCase]:
    if pictures and options.images_without_mask is None:
        raise DataError(
            f"{len(pictures)} pictures without JSON file, such as {pictures[0].name}; leave them out with "
            f"--images_without_mask skip, or make them test images with --images_without_mask test"
        )
    return [FoundCase(path, path.stem, None, TEST) for path in pictures if options.images_without_mask == TEST]


def _shape(drawn: Mapping[str, Any], labels: Mapping[str, int], where: str) -> Shape | None:
    """Converts a shape; None if it is a line or a point."""
    label, kind = labels[drawn["label"]], drawn.get("shape_type") or "polygon"
    corners = _corners(drawn.get("points"), where)
    if kind == "polygon":
        if len(corners) < _FEWEST_CORNERS:
            raise DataError(f"{where}: a polygon has at least three corners")
        return Shape(label, (corners,))
    if kind not in ("rectangle", "circle", "mask"):
        return None
    if len(corners) != 2:  # noqa: PLR2004 - of a box, or centre and edge
        raise DataError(f"{where}: a {kind} has two points")
    (x0, y0), (x1, y1) = corners
    if kind == "rectangle":
        return Shape(label, (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),))
    if kind == "circle":
        return Shape(label, circle=(x0, y0, math.dist(*corners)))
    return Shape(label, pixels=_mask(drawn.get("mask"), where), top=int(min(y0, y1)), left=int(min(x0, x1)))


def _corners(points: Any, where: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise DataError(f"{where}: points must be a list of [x, y]")
    return tuple((float(x), float(y)) for x, y in points)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_coordinate, point))  # noqa: PLR2004 - x, y


def _mask(text: Any, where: str) -> np.ndarray:
    """Decodes a PNG in base64 whose nonzero pixels belong to the object."""
    from PIL import Image

    try:
        raw = base64.b64decode(text, validate=True)
        with Image.open(BytesIO(raw), formats=["PNG"]) as image:
            size = image.height, image.width
            require_readable_size(where, size, unpacked=size[0] * size[1], packed=len(raw))
            return np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, OSError, binascii.Error) as err:
        raise DataError(f"{where}: its mask is no PNG in base64") from err

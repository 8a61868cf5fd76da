"""COCO's JSON: `images`, `annotations` and `categories`; polygons and run lengths, `iscrowd` is ignored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.json_files import read_json
from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, Classes, Request, classes_of
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
from nnunetv2.dataset_conversion.import_images.polygons import is_coordinate
from nnunetv2.dataset_conversion.import_images.run_lengths import decode_run_lengths
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import is_picture

_KEYS = ("images", "annotations", "categories")
_FEWEST_NUMBERS = 6  # three corners
_NUMBERS_OF_A_CORNER = 2


def fits(place: Place) -> bool:
    return bool(_files(place))


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Reads the shapes of every picture; the part follows from the name or folder of the JSON file.

    Raises:
        DataError: a file contradicts itself, or a picture is missing.
        UsageError: `--labels` names no categories, or compressed run lengths need pycocotools.
    """
    files = _files(place)
    if not files:
        root = place.masks or place.images
        raise UsageError(f"There is no JSON file with images, annotations and categories in {root}")
    contents = {path: read_json(path) for path in files}
    categories = _categories(contents)
    classes, labels = _classes(categories, contents, options)
    pictures = _Pictures(place.images if place.images.is_dir() else place.images.parent)
    cases = [case for path, content in contents.items() for case in _cases(path, content, labels, classes, pictures)]
    return Export(_chosen(cases), classes)


def _files(place: Place) -> list[Path]:
    root = place.masks if place.masks is not None else place.images
    if root.suffix.lower() == ".json":
        candidates = [root] if root.is_file() else []
    elif root.is_dir():
        candidates = sorted({*root.glob("*.json"), *root.glob("*/*.json")})
    else:
        candidates = []
    return [path for path in candidates if _is_coco(path)]


def _is_coco(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(1 << 20)
    if b"{" not in start[:16] or (b'"shapes"' in start and b'"annotations"' not in start):
        return False
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and all(_are_objects(content.get(key)) for key in _KEYS)


def _are_objects(entries: Any) -> bool:
    return isinstance(entries, list) and all(isinstance(each, dict) for each in entries)


def _categories(contents: Mapping[Path, Any]) -> dict[int, str]:
    """Name of each category, sorted by its number.

    Raises:
        DataError: files differ in them.
    """
    found: dict[int, str] = {}
    for path, content in contents.items():
        for category in content["categories"]:
            number, name = category.get("id"), category.get("name")
            if not isinstance(number, int) or not isinstance(name, str) or not name:
                raise DataError(f"{path}: the category {category!r} has no id and name")
            if found.setdefault(number, name) != name:
                raise DataError(f"{path} calls category {number} {name}, another file {found[number]}")
    return dict(sorted(found.items()))


def _classes(
    categories: Mapping[int, str], contents: Mapping[Path, Any], options: Options
) -> tuple[Classes, dict[int, int]]:
    """Classes, and the label of each category; 0 for those that `--labels` leaves out."""
    has_crowd = any(each.get("iscrowd") for content in contents.values() for each in content["annotations"])
    requests = options.requests or [Request(name, ranges=((number, number),)) for number, name in categories.items()]
    classes = classes_of(requests)
    classes = classes.with_ignore() if has_crowd else classes
    labels = dict.fromkeys(categories, 0)
    for request in requests:
        wanted = [number for number in categories if any(low <= number <= high for low, high in request.ranges)]
        wanted += [number for number, name in categories.items() if name in request.words]
        if not request.ranges and not request.words:
            wanted = [number for number, name in categories.items() if name == request.name]
        if not wanted and request.name != BACKGROUND:
            listed = ", ".join(f"{name}={number}" for number, name in categories.items())
            raise UsageError(f"--labels {request.name} is no category; the file has {listed}")
        labels |= dict.fromkeys(wanted, classes.labels[request.name])
    return classes, labels


def _cases(
    path: Path, content: Mapping[str, Any], labels: Mapping[int, int], classes: Classes, pictures: _Pictures
) -> list[FoundCase]:
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[_number(annotation, "image_id", path)].append(annotation)
    numbers = [_number(image, "id", path) for image in content["images"]]
    if unknown := sorted(map(str, by_image.keys() - set(numbers))):
        raise DataError(f"{path} has annotations of the image {unknown[0]}, which it does not list")
    part = _part(path)
    cases = []
    for image in content["images"]:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: the image {image.get('id')!r} has no file_name")
        file = pictures.find(name, path)
        shapes = tuple(
            _shape(each, labels, classes, f"{path}, annotation {each.get('id')}") for each in by_image[image.get("id")]
        )
        size = (image["height"], image["width"]) if "height" in image and "width" in image else None
        is_unlabelled = part == TEST and not content["annotations"]
        cases.append(FoundCase(file, file.stem, None if is_unlabelled else ShapeSource(path, shapes, size), part))
    return cases


def _number(entry: Mapping[str, Any], key: str, path: Path) -> int | str:
    if not isinstance(entry.get(key), (int, str)):
        raise DataError(f"{path}: {str(entry)[:80]} has no {key}")
    return entry[key]


def _part(path: Path) -> str:
    words = [*path.parent.name.lower().split("_"), *path.stem.lower().replace("-", "_").split("_")]
    for word in words:
        stripped = word.rstrip("0123456789")  # val2017
        if stripped in PARTS:
            return PARTS[stripped]
    return TRAIN


def _shape(annotation: Mapping[str, Any], labels: Mapping[int, int], classes: Classes, where: str) -> Shape:
    number, segmentation = annotation.get("category_id"), annotation.get("segmentation")
    if not isinstance(number, int) or number not in labels:
        raise DataError(f"{where} has the category {number!r}, which the file does not list")
    label = classes.ignore_label if annotation.get("iscrowd") else labels[number]
    if isinstance(segmentation, dict):
        return Shape(label, pixels=decode_run_lengths(segmentation, where))
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"{where} has no segmentation, only a box perhaps; export polygons or masks")
    return Shape(label, tuple(_corners(polygon, where) for polygon in segmentation))


def _corners(numbers: Any, where: str) -> tuple[tuple[float, float], ...]:
    is_list = isinstance(numbers, list) and all(map(is_coordinate, numbers))
    if not is_list or len(numbers) < _FEWEST_NUMBERS or len(numbers) % _NUMBERS_OF_A_CORNER:
        raise DataError(f"{where}: a polygon is a list x1, y1, x2, y2, ... of at least three corners")
    return tuple(zip(map(float, numbers[::2]), map(float, numbers[1::2]), strict=True))


def _chosen(cases: Sequence[FoundCase]) -> tuple[FoundCase, ...]:
    """Puts the folder before names that several pictures have."""
    names = [case.name for case in cases]
    doubles = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return tuple(
        FoundCase(case.image, f"{case.image.parent.name}_{case.name}", case.source, case.part)
        if case.name in doubles
        else case
        for case in cases
    )


class _Pictures:
    """Finds pictures below a folder by the name that a JSON file gives them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str, json_file: Path) -> Path:
        """Looks beside the JSON file, in the folder of pictures, and anywhere below it.

        Raises:
            DataError: there is no such picture, or several.
        """
        stays_inside = ".." not in Path(name).parts and not Path(name).is_absolute()
        for folder in (json_file.parent, self._root, self._root / "images") if stays_inside else ():
            if is_picture(name) and (folder / name).is_file():
                return folder / name
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in sorted(self._root.rglob("*")):
                if is_picture(path) and path.is_file():
                    self._by_name[path.name].append(path)
        found = self._by_name.get(Path(name).name, [])
        if len(found) != 1:
            there = f"there are several: {', '.join(map(str, found[:3]))}" if found else "there is none"
            raise DataError(f"{json_file} lists the picture {name}; below {self._root} {there}")
        return found[0]

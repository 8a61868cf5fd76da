"""Find all pictures of an import with their labels, fields of view, groups and new names."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.case_conversion import Form, Job
from nnunetv2.dataset_conversion.import_images.case_names import safe_names
from nnunetv2.dataset_conversion.import_images.classes import parse_labels
from nnunetv2.dataset_conversion.import_images.field_of_view import AUTO
from nnunetv2.dataset_conversion.import_images.groups import groups_of_cases
from nnunetv2.dataset_conversion.import_images.label_sources import MaskSource
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST, Export, FoundCase, Options, Place
from nnunetv2.dataset_conversion.import_images.layouts.registry import find_layout
from nnunetv2.dataset_conversion.import_images.pairing import pair, pictures_in
from nnunetv2.dataset_conversion.import_images.settings import Settings
from nnunetv2.dataset_conversion.import_images.suspicions import Warned
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import picture_kind
from nnunetv2.utilities.message_parts import counted

logger = logging.getLogger(__name__)

_DEEP = 16  # bits
_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Gathered:
    """Everything that is to be converted."""

    jobs: tuple[Job, ...]
    form: Form
    layout: str
    colours: dict[int, int]
    """0xrrggbb of labels whose masks are coloured"""
    notes: tuple[str, ...]
    warnings: tuple[Warned, ...]
    has_groups: bool


def gather(settings: Settings, taken: Sequence[str], taken_in_test: Sequence[str]) -> Gathered:
    """Finds the cases of an import.

    Args:
        taken: names of cases that a dataset has already; and those of its test images.

    Raises:
        UsageError: flags do not suit what lies in the folders.
        DataError: pictures, masks or fields of view are missing, or pictures of different kinds are mixed.
    """
    place = _place(settings.images, settings.masks)
    name, layout = find_layout(settings.layout, place)
    test = None
    if settings.test_masks is not None:
        if not layout.has_folders:
            raise UsageError(f"-tm names a folder of masks, and the layout {name} has none; leave it out")
        test = _place(settings.test_images, settings.test_masks)
    options = Options(
        parse_labels(settings.labels),
        settings.snap,
        settings.threshold,
        settings.pair,
        settings.images_without_mask,
        settings.overlap,
        settings.reduce_zero_label,
    )
    export = layout.collect(place, test, options)
    cases = list(export.cases)
    if settings.test_images is not None and test is None:
        cases += _test_images(Path(settings.test_images), name, options)
    if not any(case.part != TEST for case in cases):
        raise DataError(f"{settings.images} has no training case with labels ({len(cases)} test images)")
    cases = _with_fields_of_view(sorted(cases, key=lambda case: (case.part == TEST, case.name)), settings)
    form, warnings = _form(cases, export, settings)
    names = _names(cases, taken, taken_in_test)
    groups = groups_of_cases(settings.group, cases, names)
    root = _root(settings)
    jobs = tuple(
        Job(new, case.part, case.image, case.source, case.fov, group, root)
        for case, new, group in zip(cases, names, groups, strict=True)
    )
    return Gathered(
        jobs,
        form,
        name,
        _colours(cases),
        export.notes,
        (*(Warned(text) for text in export.warnings), *warnings),
        settings.group is not None or any(groups),
    )


def _place(images: str, masks: str | None) -> Place:
    for name in (images, masks):
        if name is not None and not Path(name).exists():
            raise UsageError(f"There is no {name}; {_neighbours(Path(name))}")
    return Place(Path(images), None if masks is None else Path(masks))


def _neighbours(path: Path) -> str:
    """What lies where a path was looked for, for messages."""
    parent = path.parent
    if not parent.is_dir():
        return f"there is no {parent} either: correct the path"
    names = sorted(each.name for each in parent.iterdir() if each.name[0] != ".")
    listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{parent.resolve()} has {listed or 'nothing'}: name one of them, or correct the path"


def _root(settings: Settings) -> Path:
    """The folder that encloses all that is imported; recorded names are relative to it."""
    given = (settings.images, settings.masks, settings.test_images, settings.test_masks, *settings.fov)
    places = [Path(each).resolve() for each in given if each is not None and each != AUTO]
    return Path(os.path.commonpath([place.parent if place.is_file() else place for place in places]))


def _test_images(folder: Path, layout: str, options: Options) -> list[FoundCase]:
    if folder.suffix.lower() == ".csv":
        raise UsageError(f"{folder}: a table of test images needs -tm; or give -ti a folder (layout {layout})")
    images = pictures_in(folder)
    if options.pattern is None:
        return [FoundCase(image, image.stem, None, TEST) for image in images]
    named = pair(images, [], pattern=options.pattern, may_lack_masks=True).names
    return [FoundCase(image, named[image], None, TEST) for image in images]


def _with_fields_of_view(cases: Sequence[FoundCase], settings: Settings) -> list[FoundCase]:
    folders = settings.fov or ((AUTO,) if settings.crop_fov else ())
    if not folders or AUTO in folders:
        return [replace(case, fov=case.fov or (AUTO if folders else None)) for case in cases]
    found: dict[Path, Path] = {}
    for is_test, folder in ((False, folders[0]), (True, folders[-1])):
        images = [case.image for case in cases if (case.part == TEST) == is_test]
        if not images:
            continue
        fields = pictures_in(Path(folder))
        # Test images rarely have theirs in the folder of the training: only a second folder must be complete.
        may_lack = is_test and len(folders) == 1
        found |= _paired_fields(images, fields, settings, may_lack=may_lack)
    return [replace(case, fov=case.fov or found.get(case.image)) for case in cases]


def _paired_fields(
    images: Sequence[Path], fields: Sequence[Path], settings: Settings, *, may_lack: bool
) -> dict[Path, Path]:
    what = "field of view (--fov)"
    try:
        pairs = pair(images, fields, may_lack_masks=may_lack, what=what)
    except DataError:
        if settings.pair is None:
            raise
        pairs = pair(images, fields, pattern=settings.pair, may_lack_masks=may_lack, what=what)
    return dict(pairs.masks)


def _form(cases: Sequence[FoundCase], export: Export, settings: Settings) -> tuple[Form, list[Warned]]:
    """Channels and depth of the dataset.

    Raises:
        DataError: depths are mixed, or `--grey` or `--alpha` reject a picture.
    """
    kinds = {case.image: picture_kind(case.image) for case in cases}
    grey = [path for path, kind in kinds.items() if not kind.is_colour]
    is_colour = len(grey) < len(kinds)
    warnings = []
    if is_colour and grey:
        listed = f"{', '.join(path.name for path in grey[:5])}{', ...' if len(grey) > 5 else ''}"  # noqa: PLR2004 - shown
        if settings.grey == "refuse":
            raise DataError(f"{len(grey)} of {len(kinds)} pictures are grey, the others coloured: {listed}")
        warnings.append(
            Warned(f"{counted(len(grey), 'grey picture')} among coloured ones, repeated to R, G and B: {listed}")
        )
    with_alpha = [path for path, kind in kinds.items() if kind.has_alpha]
    if with_alpha and settings.alpha == "refuse":
        raise DataError(f"{len(with_alpha)} of {len(kinds)} pictures have an alpha channel, such as {with_alpha[0]}")
    deep = [path for path, kind in kinds.items() if kind.bits == _DEEP]
    if deep and len(deep) < len(kinds) and settings.depth == "keep":
        shallow = next(path for path in kinds if path not in deep)
        raise DataError(
            f"Pictures have different depths: {deep[0]} has 16 bits per channel and {shallow} has 8 ({len(deep)} of "
            f"{len(kinds)} have 16); convert them to one, or scale all to 16 with --depth 16"
        )
    bits = _DEEP if deep or settings.depth == str(_DEEP) else 8
    if bits == _DEEP and settings.norm == "rgb_to_0_1":
        raise UsageError("--norm rgb_to_0_1 divides by 255, and these pictures have 16 bits; leave it out")
    classes = export.classes
    if settings.outside == "ignore" and any(case.fov and case.source for case in cases):
        classes = classes.with_ignore()
    return Form(classes, is_colour, bits, settings.outside, settings.crop_fov), warnings


def _names(cases: Sequence[FoundCase], taken: Sequence[str], taken_in_test: Sequence[str]) -> list[str]:
    training = [case.name for case in cases if case.part != TEST]
    test = [case.name for case in cases if case.part == TEST]
    for names, there in ((training, taken), (test, taken_in_test)):
        if both := sorted({*safe_names(names)} & {*there}):
            raise DataError(
                f"--add: the dataset already has the case {both[0]}; rename the pictures, or use --overwrite"
            )
    return [*safe_names(training), *safe_names(test)]


def _colours(cases: Sequence[FoundCase]) -> dict[int, int]:
    tables = (case.source.table for case in cases if isinstance(case.source, MaskSource))
    first = next(tables, None)
    return {} if first is None else {label: colour for colour, label in reversed(first.colours) if label}

"""Turn the pictures that other programs predict into label maps, and bring predictions of cropped cases back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dinov3.utils.atomic_files import replace_folder_when_complete
from nnunetv2.dataset_conversion.import_images.case_conversion import ENDING, as_label_type, write_png
from nnunetv2.dataset_conversion.import_images.case_names import safe_names
from nnunetv2.dataset_conversion.import_images.case_record import CaseRecord
from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Classes, parse_labels
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, labels_of
from nnunetv2.dataset_conversion.import_images.layouts.layout import Options, table_for
from nnunetv2.dataset_conversion.import_images.pairing import pair, pictures_in
from nnunetv2.dataset_conversion.import_images.settings import Settings
from nnunetv2.dataset_conversion.import_images.target_dataset import IMPORTED, Existing, read_existing
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import read_picture
from nnunetv2.paths import nnUNet_raw, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.message_parts import counted

logger = logging.getLogger(__name__)

Window = tuple[int, int, int, int]
"""First row, first column, height and width."""


@dataclass(frozen=True)
class PredictionSettings:
    """Where predictions lie and go, and which part of them counts."""

    labels: Settings
    """the flags that also a dataset has"""
    output: str | None = None
    """`-o`"""
    crop: Window | None = None
    full_grid: bool = False
    """paste predictions of cases that were cropped to their field of view into the whole picture"""


def import_predictions(settings: PredictionSettings) -> Path | None:
    """Writes one label map per picture, `CASE.png`, into a folder that appears when it is complete.

    The classes are those of the dataset if it exists, and the files are named after its cases.

    Returns:
        The folder; None for a dry run.

    Raises:
        UsageError: the output, the dataset or the meaning of the colours is not known.
        DataError: a picture is of another size or has an unknown colour, or belongs to no case.
    """
    flags = settings.labels
    if flags.images is None:
        raise UsageError("--predictions needs the folder of the predicted pictures (-i)")
    existing = _existing(flags.dataset_id)
    target = _target(settings, existing)
    files = pictures_in(Path(flags.images))
    cases, records = _cases(files, existing, flags.pair)
    table, of_table = _table(files, existing, flags)
    if settings.full_grid and existing is None:
        raise UsageError(
            "--full_grid needs the dataset of the predictions (-d), whose import.csv knows what was cropped"
        )
    if flags.dry_run:
        for file, case in zip(files, cases, strict=True):
            logger.info("%s from %s", case, file.name)
            _converted(file, table, of_table, settings, records.get(file))
        return None
    with replace_folder_when_complete(target) as folder:
        snapped = 0
        for file, case in zip(files, cases, strict=True):
            labels, num_snapped = _converted(file, table, of_table, settings, records.get(file))
            snapped += num_snapped
            write_png(as_label_type(labels), folder / f"{case}{ENDING}")
    if snapped:
        logger.warning("Warning: %d pixels took the nearest colour or value", snapped)
    logger.info("%s: %s; compare them with nnUNetv2_compare -m %s", target, counted(len(files), "label map"), target)
    return target


def _existing(dataset_id: int | None) -> Existing | None:
    if dataset_id is None or not nnUNet_raw.is_set():
        return None
    folders = [Path(nnUNet_raw) / name for name in find_candidate_datasets(dataset_id)]
    folders = [folder for folder in folders if folder.is_dir()]
    return read_existing(folders[0]) if folders else None


def _target(settings: PredictionSettings, existing: Existing | None) -> Path:
    flags = settings.labels
    if settings.output is not None:
        target = Path(settings.output)
    elif existing is None or flags.name is None:
        raise UsageError(
            "--predictions needs a folder for the label maps: -o FOLDER, or a dataset that was imported (-d) and a "
            "name of the method (-n)"
        )
    else:
        target = Path(nnUNet_results) / existing.folder.name / check_name(flags.name, "a method (-n)", UsageError)
    if target.exists() and not flags.overwrite:
        raise UsageError(f"{target} exists already; choose another with -o or -n, or replace it with --overwrite")
    if target.resolve() == Path(flags.images).resolve():
        raise UsageError(f"The label maps would replace the pictures in {target}; choose another folder with -o")
    return target


def _cases(
    files: Sequence[Path], existing: Existing | None, pattern: str | None
) -> tuple[list[str], dict[Path, CaseRecord]]:
    """Name of the case of each picture, and its record if there is a dataset."""
    if existing is None:
        if pattern is None:
            return safe_names(file.stem for file in files), {}
        names = pair(files, [], pattern=pattern, may_lack_masks=True).names
        return safe_names(names[file] for file in files), {}
    by_case = {record.case: record for record in existing.records}
    if all(file.stem in by_case for file in files):
        return [file.stem for file in files], {file: by_case[file.stem] for file in files}
    by_image = {Path(record.image): record for record in existing.records}
    pairs = pair(files, list(by_image), pattern=pattern, what="case")
    records = {file: by_image[image] for file, image in pairs.masks.items()}
    return [records[file].case for file in files], records


def _table(files: Sequence[Path], existing: Existing | None, flags: Settings) -> tuple[LabelTable, dict[int, int]]:
    """The table of the pictures, and the label in the dataset of each label of the table."""
    texts = flags.labels
    if existing is not None and not texts:
        imported = existing.description.get(IMPORTED, {})
        texts = tuple(imported.get("labels", ()))
        if _are_label_maps(files, existing):
            texts = tuple(f"{name}={label}" for name, label in _labels(existing).items())
    options = Options(parse_labels(texts), flags.snap, flags.threshold)
    table = table_for(files, options)
    if existing is None:
        return table, {label: label for label in table.classes.labels.values()}
    labels = _labels(existing)
    names = [name for name in labels if name not in (BACKGROUND, IGNORE)]
    if not texts and len(names) == 1:
        table = replace(table, classes=Classes(tuple(names)))
    if unknown := [name for name in table.classes.labels if name not in labels and name != IGNORE]:
        raise UsageError(
            f"{existing.folder.name} has no class {', '.join(unknown)}; name the classes of the predictions as there: "
            f"{', '.join(names)}"
        )
    return table, {label: labels.get(name, 0) for name, label in table.classes.labels.items()}


def _labels(existing: Existing) -> dict[str, int]:
    """Label of each class, also of those that dataset.json joins to regions."""
    classes = existing.description.get(IMPORTED, {}).get("classes")
    if not isinstance(classes, dict) or not all(isinstance(label, int) for label in classes.values()):
        raise DataError(f"dataset.json of {existing.folder.name} does not say how its pictures were imported")
    return classes


def _are_label_maps(files: Sequence[Path], existing: Existing) -> bool:
    """Whether all pictures are grey and have labels of the dataset, as the predictions of nnU-Net."""
    highest = max(_labels(existing).values())
    pictures = (read_picture(file) for file in files)
    return all(p.palette is None and p.pixels.ndim == 2 and p.pixels.max(initial=0) <= highest for p in pictures)  # noqa: PLR2004 - grey


def _converted(
    file: Path, table: LabelTable, of_table: dict[int, int], settings: PredictionSettings, record: CaseRecord | None
) -> tuple[np.ndarray, int]:
    labels, snapped = labels_of(read_picture(file), table, file)
    labels = np.array([of_table.get(label, 0) for label in range(max(of_table) + 1)], np.int32)[labels]
    if settings.crop is not None:
        labels = _cut(labels, settings.crop, file)
    if record is None:
        return labels, snapped
    window = record.crop_y, record.crop_x, record.crop_height, record.crop_width
    whole, part = (record.height, record.width), window[2:]
    if labels.shape not in (whole, part):
        raise DataError(
            f"{file} has {labels.shape[0]} x {labels.shape[1]} pixels (height x width), and its case {record.case} "
            f"{whole[0]} x {whole[1]}{'' if part == whole else f' (cropped: {part[0]} x {part[1]})'}; cut padding off "
            f"with --crop Y X HEIGHT WIDTH"
        )
    if settings.full_grid and labels.shape != whole:
        pasted = np.zeros(whole, np.int32)
        pasted[window[0] : window[0] + window[2], window[1] : window[1] + window[3]] = labels
        return pasted, snapped
    if not settings.full_grid and labels.shape != part:
        labels = _cut(labels, window, file)
    return labels, snapped


def _cut(labels: np.ndarray, window: Window, file: Path) -> np.ndarray:
    y, x, height, width = window
    if min(y, x) < 0 or min(height, width) < 1 or y + height > labels.shape[0] or x + width > labels.shape[1]:
        raise UsageError(
            f"--crop {y} {x} {height} {width} leaves {file}, which has {labels.shape[0]} x {labels.shape[1]} pixels; "
            f"it is the first row, first column, height and width"
        )
    return labels[y : y + height, x : x + width]

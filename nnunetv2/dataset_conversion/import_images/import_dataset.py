"""Import pictures and masks as a raw dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import replace_folder_when_complete, write_json
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.dataset_conversion.import_images.case_conversion import ENDING, Converted, Form, convert_case
from nnunetv2.dataset_conversion.import_images.case_record import TABLE, CaseRecord, write_records
from nnunetv2.dataset_conversion.import_images.gather_cases import Gathered, gather
from nnunetv2.dataset_conversion.import_images.groups import splits_of
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST, VALIDATION
from nnunetv2.dataset_conversion.import_images.preview import FOLDER, draw_previews
from nnunetv2.dataset_conversion.import_images.regions import declare_labels
from nnunetv2.dataset_conversion.import_images.settings import Settings
from nnunetv2.dataset_conversion.import_images.suspicions import Warned, warnings_on
from nnunetv2.dataset_conversion.import_images.target_dataset import (
    IMPORTED,
    Existing,
    copy_cases,
    names_of,
    read_existing,
    require_same_form,
    target_folder,
)
from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.crossval_split import Split
from nnunetv2.utilities.message_parts import command_text, counted
from nnunetv2.utilities.patient_names import visits_of_patients
from nnunetv2.utilities.processes.case_pool import map_cases
from nnunetv2.utilities.splits_file import SPLITS_FILE

logger = logging.getLogger(__name__)

_CASES_PER_PROCESS = 50  # fewer do not pay for its start
_RGB_NORM = "rgb_to_0_1"


def import_dataset(settings: Settings) -> Path | None:
    """Imports a dataset, which appears under its name when it is complete.

    Returns:
        Its folder; None for a dry run.

    Raises:
        UsageError: flags are missing, contradict each other or do not suit the data.
        DataError: the data is incomplete or contradicts itself; nothing is written.
    """
    target = target_folder(settings)
    existing = read_existing(target) if settings.add else None
    old = () if existing is None else existing.records
    gathered = gather(settings, names_of(old, test=False), names_of(old, test=True))
    for note in gathered.notes:
        logger.info("%s", note)
    description = _description(settings, gathered)
    if existing is not None:
        require_same_form(existing, description)
    if settings.dry_run:
        records, _, _ = _convert(gathered, None, old, settings)
        _log_table(records, gathered.form)
        _splits(settings, gathered, (*old, *records), existing)
        logger.info("Dry run: %s would have %s", target, _summary((*old, *records)))
        return None
    with replace_folder_when_complete(target) as folder:
        if existing is not None:
            copy_cases(existing, folder)
        records, all_warned, _ = _convert(gathered, folder, old, settings)
        everything = (*old, *records)
        splits = _splits(settings, gathered, everything, existing)
        if splits is not None:
            write_json(splits, folder / SPLITS_FILE)
        write_records(everything, folder / TABLE)
        num_training = sum(record.part != TEST for record in everything)
        generate_dataset_json(folder, num_training_cases=num_training, file_ending=ENDING, **description)
        drawn = 0
        if settings.preview:
            drawn = draw_previews(folder, records, settings.preview, all_warned, gathered.colours)
    _log_result(target, settings, everything, drawn)
    return target


def _convert(
    gathered: Gathered, folder: Path | None, old: Sequence[CaseRecord], settings: Settings
) -> tuple[list[CaseRecord], list[Warned], list[Converted]]:
    jobs = [(job, gathered.form, folder) for job in gathered.jobs]
    num_processes = max(1, min(settings.num_processes, len(jobs) // _CASES_PER_PROCESS))
    shown = {"description": "Importing", "show_progress": True}
    converted = list(map_cases(convert_case, jobs, num_processes, **shown))
    records = [each.record for each in converted]
    for each in converted:
        for note in each.notes:
            logger.info("%s", note)
    outside = sum(each.num_outside for each in converted)
    if outside:
        total = sum(record.height * record.width for record in records)
        logger.info("%.1f %% of the pixels lie outside of the field of view", 100 * outside / total)
    warned = [*gathered.warnings, *warnings_on([*old, *records], gathered.form.classes)]
    for each in warned:
        logger.warning("Warning: %s", each.text)
    return records, warned, converted


def _description(settings: Settings, gathered: Gathered) -> dict[str, Any]:
    """The arguments of `generate_dataset_json` that do not depend on the number of cases."""
    labels, order, notes = declare_labels(gathered.form.classes, settings.regions)
    for note in notes:
        logger.info("%s", note)
    names = ("R", "G", "B") if gathered.form.is_colour else ("grey",)
    if settings.norm == _RGB_NORM:
        names = (_RGB_NORM,) * len(names)
    return {
        "channel_names": {str(number): name for number, name in enumerate(names)},
        "labels": labels,
        "regions_class_order": order,
        "dataset_name": settings.name,
        "converted_by": "nnUNetv2_import_images",
        IMPORTED: {
            "layout": gathered.layout,
            "classes": gathered.form.classes.labels,
            "labels": list(settings.labels),
            "bits": gathered.form.bits,
            "crop_fov": settings.crop_fov,
        },
    }


def _splits(
    settings: Settings, gathered: Gathered, records: Sequence[CaseRecord], existing: Existing | None
) -> list[Split] | None:
    """Folds of all training cases; None for nnU-Net's own."""
    old_groups = existing is not None and any(record.group for record in existing.records)
    if old_groups and not gathered.has_groups:
        raise UsageError("--add: the dataset is split by group, so say the groups of the new cases with --group")
    splits = splits_of(records, settings.folds, by_group=gathered.has_groups)
    has_splits = existing is not None and (existing.folder / SPLITS_FILE).is_file()
    if splits is None and has_splits:
        raise UsageError(f"--add: the dataset has a {SPLITS_FILE}; say with --group or --folds how to split all cases")
    if splits is not None:
        if has_splits:
            logger.info("The folds of all cases are drawn anew; models of the old ones are not comparable")
        if gathered.has_groups and any(record.part == VALIDATION for record in records):
            logger.info("--group replaces the training and validation parts of the export")
        return splits
    cases = sorted(record.case for record in records if record.part != TEST)
    if found := visits_of_patients(cases):
        hint = command_text(["--group", found[0]])
        logger.warning("Warning: names look like several pictures of one patient; keep them in one fold with %s", hint)
    return None


def _log_table(records: Sequence[CaseRecord], form: Form) -> None:
    for record in records:
        total = sum(record.pixels.values())
        shares = ", ".join(
            f"{name} {100 * count / total:.2f} %"
            for name, count in record.pixels.items()
            if name in form.classes.labels
        )
        group = f", group {record.group}" if record.group else ""
        logger.info(
            "%s (%s%s): %s with %s, %d x %d, %s",
            record.case,
            record.part,
            group,
            record.image,
            record.mask or "no mask",
            record.crop_height,
            record.crop_width,
            shares or "no labels",
        )


def _summary(records: Sequence[CaseRecord]) -> str:
    num_test = sum(record.part == TEST for record in records)
    training = counted(len(records) - num_test, "training case")
    return f"{training} and {counted(num_test, 'test image')}" if num_test else training


def _log_result(target: Path, settings: Settings, records: Sequence[CaseRecord], drawn: int) -> None:
    logger.info("%s: %s; old and new names are in %s", target, _summary(records), TABLE)
    if drawn:
        logger.info("Look at the %s in %s", counted(drawn, "preview"), target / FOLDER)
    if settings.norm == _RGB_NORM:
        logger.info("Intensities will be 0 to 1, as model.input_norm=imagenet and visionfm_fundus need them")
    else:
        logger.info("With model.input_norm=imagenet or visionfm_fundus, import with --norm %s", _RGB_NORM)
    if nnUNet_preprocessed.is_set() and (Path(nnUNet_preprocessed) / target.name).is_dir():
        logger.warning("Warning: %s in nnUNet_preprocessed is older; preprocess the dataset again", target.name)
    logger.info("Next: nnUNetv2_plan_and_preprocess -d %d --verify_dataset_integrity", settings.dataset_id)

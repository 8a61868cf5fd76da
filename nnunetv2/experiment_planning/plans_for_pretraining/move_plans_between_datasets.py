"""Copies plans from one dataset to another, so that networks trained on one can be fine-tuned on the other."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.dataset_json import channel_names, read_dataset_json
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.plans_handling.plans_files import listed_plans, require_plans_name
from nnunetv2.utilities.plans_handling.plans_schema import read_plans

logger = logging.getLogger(__name__)


def move_plans_between_datasets(
    source_dataset_name_or_id: int | str,
    target_dataset_name_or_id: int | str,
    source_plans_identifier: str,
    target_plans_identifier: str | None = None,
) -> None:
    """Copies plans to another dataset; keeps network and preprocessing, adapts names and image reader.

    Intensity properties are those of the source, so that both datasets are normalised identically. The target needs no
    fingerprint of its own; preprocess it with the new plans.

    Args:
        source_dataset_name_or_id: the dataset that has the plans, for example 4 or "Dataset004_Hippocampus".
        target_dataset_name_or_id: the dataset that receives them; its raw images must exist.
        source_plans_identifier: name of the plans file, without ending.
        target_plans_identifier: name of the copy; None: the same name.

    Raises:
        UsageError: the plans do not exist, the target has no raw data, the plans would overwrite themselves, or the
            name is invalid.
        DataError: there is no reader for the images of the target.
    """
    from dinov3.utils.atomic_files import write_json
    from nnunetv2.experiment_planning.experiment_planners.plans_file import copy_dataset_files, warn_of_outdated_cases
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    source = maybe_convert_to_dataset_name(source_dataset_name_or_id)
    target = maybe_convert_to_dataset_name(target_dataset_name_or_id)
    name = source_plans_identifier if target_plans_identifier is None else require_plans_name(target_plans_identifier)
    if (source, source_plans_identifier) == (target, name):
        raise UsageError(f"{name} of {source} would be copied onto itself; give another dataset (-t) or name (-tp)")
    plans = read_plans(_plans_file(Path(nnUNet_preprocessed, source), source_plans_identifier))
    raw_folder = Path(nnUNet_raw, target)
    if not (raw_folder / "dataset.json").is_file():
        raise UsageError(f"There is no {raw_folder / 'dataset.json'}; plans can only go to a dataset with raw data")
    dataset_json = read_dataset_json(raw_folder / "dataset.json")
    _warn_of_other_channels(plans, dataset_json, target)
    reader = _reader_of(str(raw_folder), dataset_json)

    copy_dataset_files(raw_folder, Path(nnUNet_preprocessed, target))  # preprocessing and training read them from there
    copy = Path(nnUNet_preprocessed, target, f"{name}.json")
    older = read_plans(copy) if copy.is_file() else None
    if older is not None:
        logger.warning("%s is replaced; models that were trained with it do not fit the new plans", copy)
    adapted = {**renamed(plans, source_plans_identifier, name), "dataset_name": target, "image_reader_writer": reader}
    write_json(adapted, copy)
    if older is not None:
        warn_of_outdated_cases(older, adapted, name, copy.parent)
    logger.info("The plans %s of %s are now in %s", source_plans_identifier, source, copy)


def renamed(plans: dict[str, Any], old_name: str, new_name: str) -> dict[str, Any]:
    """Renames plans; if the name differs, the preprocessed cases get separate folders.

    A folder named after the old plans is renamed after the new ones; any other is prefixed with the new name.
    """
    configurations = {name: dict(entry) for name, entry in plans["configurations"].items()}
    for entry in configurations.values():
        if new_name != old_name and "data_identifier" in entry:
            folder = entry["data_identifier"]
            rest = folder[len(old_name) :] if folder.startswith(old_name) else f"_{folder}"
            entry["data_identifier"] = new_name + rest
    return {**plans, "plans_name": new_name, "configurations": configurations}


def _plans_file(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; run nnUNetv2_plan_and_preprocess for that dataset first")
    plans_file = folder / f"{check_name(name, 'plans', UsageError)}.json"
    if not plans_file.is_file():
        there = listed_plans(folder)
        raise UsageError(f"There is no {plans_file} (plans there: {there}); run nnUNetv2_plan_experiment, or fix -sp")
    return plans_file


def _reader_of(raw_folder: str, dataset_json: dict[str, Any]) -> str:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    cases = get_filenames_of_train_images_and_targets(raw_folder, dataset_json)
    if not cases:
        raise UsageError(f"{raw_folder} has no training images, by which the image reader is chosen")
    images = [image for case in cases.values() for image in case["images"]]
    reader = determine_reader_writer_from_dataset_json(
        dataset_json, images, allow_nonmatching_filename=True, verbose=False
    )
    return reader.__name__


def _warn_of_other_channels(plans: dict[str, Any], dataset_json: dict[str, Any], target: str) -> None:
    """Warns early that plans for another number of channels cannot preprocess the target."""
    num_channels = len(channel_names(dataset_json))
    for name, configuration in plans["configurations"].items():
        schemes = configuration.get("normalization_schemes")
        if schemes is not None and len(schemes) != num_channels:
            logger.warning(
                "%s has %d channels, but configuration %s of the plans normalises %d; edit its normalization_schemes, "
                "use_mask_for_norm and the intensity properties before you preprocess",
                target,
                num_channels,
                name,
                len(schemes),
            )
            return


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_move_plans_between_datasets",
        description="Give a dataset the plans of another, to pretrain on one and fine-tune on the other.",
    )
    parser.add_argument("-s", type=str, required=True, help="dataset that has the plans, by number or by name")
    parser.add_argument("-t", type=str, required=True, help="dataset that gets them, by number or by name")
    parser.add_argument("-sp", type=str, required=True, help="name of the plans, for example nnUNetPlans")
    parser.add_argument(
        "-tp",
        type=str,
        default=None,
        help="name for the copy; by default the same, which is unwise for nnUNetPlans and other names that planning "
        "uses: the next planning would overwrite it",
    )
    return parser


@command
def entry_point_move_plans_between_datasets(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    move_plans_between_datasets(args.s, args.t, args.sp, args.tp)

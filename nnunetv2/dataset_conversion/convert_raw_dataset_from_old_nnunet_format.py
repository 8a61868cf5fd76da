"""The command nnUNetv2_convert_old_nnUNet_dataset: converts a raw dataset of nnU-Net v1 to v2."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.message_parts import counted

logger = logging.getLogger(__name__)

SUBFOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesVal", "labelsVal")
DROPPED = ("tensorImageSize", "numTest", "training", "test")


def convert(source_folder: str | os.PathLike, target_dataset_name: str) -> None:
    """Copy a raw dataset of nnU-Net v1 into `nnUNet_raw`, with a dataset.json of v2.

    The new folder appears once it is complete. Image and label files keep their names, which are the same in v2.

    Args:
        source_folder: the folder `TaskXXX_Name` with imagesTr, labelsTr and dataset.json.
        target_dataset_name: the new name, `DatasetXXX_Name`.

    Raises:
        UsageError: the name is invalid or taken, or the source is not a dataset of v1.
        DataError: dataset.json does not match the files.
    """
    import shutil

    from dinov3.utils.atomic_files import replace_folder_when_complete, write_json
    from nnunetv2.dataset_conversion.older_layouts import existing_source, require_channels, translate_dataset_json

    source = existing_source(source_folder)
    target = _free_target(target_dataset_name)
    cases = _cases(source)
    content = translate_dataset_json(source / "dataset.json", len(cases), DROPPED)
    require_channels(cases, content["channel_names"], source)
    with replace_folder_when_complete(target) as new:
        for name in SUBFOLDERS:
            if (source / name).is_dir():
                shutil.copytree(source / name, new / name, ignore=shutil.ignore_patterns(".*"))
        write_json(content, new / "dataset.json")
    logger.info("%s: %s", target, counted(content["numTraining"], "training case"))


def _free_target(name: str) -> Path:
    from nnunetv2.paths import nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id, find_candidate_datasets
    from nnunetv2.utilities.file_names import check_name

    number = convert_dataset_name_to_id(check_name(name, "a dataset", UsageError))
    if not name.startswith(f"Dataset{number:03d}_"):
        raise UsageError(f"{name!r} is no name of a dataset; it must look like Dataset004_Hippocampus")
    target = Path(nnUNet_raw) / name
    if target.exists():
        raise UsageError(f"{target} exists already; remove it, or choose another name")
    others = [other for other in find_candidate_datasets(number) if other != name]
    if others:
        raise UsageError(f"The number {number} belongs to {', '.join(others)}; choose another one for {name}")
    return target


def _cases(source: Path) -> Mapping[str, int]:
    """Training cases with their numbers of channels."""
    from nnunetv2.dataset_conversion.older_layouts import channels_per_case, nifti_names, require_pairs

    images, labels = nifti_names(source / "imagesTr"), nifti_names(source / "labelsTr")
    if images and images == labels:
        raise UsageError(
            f"The images in {source} have no channel numbers (CASE_0000.nii.gz), so it is not a dataset of nnU-Net v1; "
            f"convert a task of the Medical Segmentation Decathlon with nnUNetv2_convert_MSD_dataset"
        )
    cases = channels_per_case(images)
    require_pairs(cases, labels, source)
    return cases


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_convert_old_nnUNet_dataset",
        description="Copy a raw dataset of nnU-Net v1 into nnUNet_raw, in the layout of v2.",
    )
    parser.add_argument(
        "input_folder", type=str, help="path of the v1 dataset, the folder with imagesTr, labelsTr and dataset.json"
    )
    parser.add_argument(
        "output_dataset_name", type=str, help="name of the new dataset, not a path, for example: Dataset027_ACDC"
    )
    return parser


@command
def convert_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    convert(args.input_folder, args.output_dataset_name)

"""The command nnUNetv2_convert_MSD_dataset: converts a task of the Medical Segmentation Decathlon to a raw dataset."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.message_parts import counted

if TYPE_CHECKING:
    import SimpleITK as sitk

logger = logging.getLogger(__name__)

DROPPED = ("training", "test")
HIGHEST_ID = 999
NOT_IMAGES = (".", "_")  # the Decathlon archives contain `._x` files of macOS


def split_4d_nifti(filename: str | os.PathLike, output_folder: str | os.PathLike) -> int:
    """Write each volume of a 4D image to its own file: `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ...

    Spacing, origin and direction are kept. A 3D image is copied to `CASE_0000.nii.gz`.

    Args:
        filename: `CASE.nii.gz`.
        output_folder: existing target folder.

    Returns:
        The number of files written.

    Raises:
        UsageError: the file name has another ending.
        DataError: the image has fewer than three or more than four axes, or the file is damaged.
    """
    import shutil

    import SimpleITK as sitk

    from dinov3.utils.atomic_files import replace_when_complete

    reader = _checked_reader(os.fspath(filename))
    case = Path(output_folder, Path(filename).name.removesuffix(".nii.gz"))
    if reader.GetDimension() == 3:
        with replace_when_complete(f"{case}_0000.nii.gz") as temporary:
            shutil.copyfile(filename, temporary)
        return 1
    image = reader.Execute()
    num_channels = image.GetSize()[3]
    for channel in range(num_channels):
        with replace_when_complete(f"{case}_{channel:04d}.nii.gz") as temporary:
            sitk.WriteImage(image[..., channel], str(temporary), useCompression=True)
    return num_channels


def _checked_reader(path: str) -> sitk.ImageFileReader:
    """Reader that has parsed the header and checked for three or four axes."""
    import SimpleITK as sitk

    from nnunetv2.imageio.channel_grid import naming
    from nnunetv2.imageio.nifti_integrity import check_nifti

    if not path.endswith(".nii.gz"):
        raise UsageError(f"{path} must be a file that ends in .nii.gz")
    with naming(path):
        check_nifti(path, max_axes=4)
        reader = sitk.ImageFileReader()
        reader.SetFileName(path)
        reader.ReadImageInformation()
    if reader.GetDimension() not in (3, 4) or reader.GetNumberOfComponents() != 1:
        raise DataError(
            f"{path} has {reader.GetDimension()} axes and {reader.GetNumberOfComponents()} values per voxel; images of "
            f"the Decathlon have 3 axes, or 4 for several channels"
        )
    return reader


def convert_msd_dataset(
    source_folder: str | os.PathLike, overwrite_target_id: int | None = None, num_processes: int | None = None
) -> None:
    """Convert a task of the Medical Segmentation Decathlon to a raw dataset in `nnUNet_raw`.

    The new folder, `DatasetXXX_NAME` for `TaskXX_NAME`, appears once it is complete.

    Args:
        source_folder: the unpacked task with dataset.json, imagesTr, labelsTr and optionally imagesTs.
        overwrite_target_id: number of the new dataset; by default that of the task.
        num_processes: upper limit for worker processes; by default `nnUNet_def_n_proc`.

    Raises:
        UsageError: the folder is not a task of the Decathlon, or the number is taken.
        DataError: dataset.json does not match the files, or an image is damaged.
    """
    from dinov3.utils.atomic_files import replace_folder_when_complete, write_json
    from nnunetv2.dataset_conversion.older_layouts import existing_source, nifti_names, translate_dataset_json

    source = existing_source(source_folder)
    target = _free_target(source, overwrite_target_id)
    _check_pairs(source)
    num_cases = len(nifti_names(source / "labelsTr", NOT_IMAGES))
    content = translate_dataset_json(source / "dataset.json", num_cases, DROPPED)
    num_processes = get_default_num_processes() if num_processes is None else num_processes
    with replace_folder_when_complete(target) as new:
        _split_images(source, new, content["channel_names"], num_processes)
        _copy_labels(source / "labelsTr", new / "labelsTr")
        write_json(content, new / "dataset.json")
    logger.info("%s: %s", target, counted(num_cases, "training case"))


def _free_target(source: Path, overwrite_target_id: int | None) -> Path:
    from nnunetv2.paths import nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

    match = re.fullmatch(r"Task(\d+)_(.+)", source.name)
    if not match:
        raise UsageError(
            f"{source} is not named like a task of the Medical Segmentation Decathlon, Task04_Hippocampus; the number "
            f"and name of the new dataset come from there, so give the folder its original name"
        )
    number = int(match[1]) if overwrite_target_id is None else overwrite_target_id
    if not 0 <= number <= HIGHEST_ID:
        raise UsageError(f"The number of the dataset is {number}; it must be from 0 to {HIGHEST_ID} (-overwrite_id)")
    taken = find_candidate_datasets(number)
    if taken:
        raise UsageError(
            f"The number {number} belongs to {', '.join(taken)} (look in nnUNet_raw, nnUNet_preprocessed and "
            f"nnUNet_results); choose another one with -overwrite_id, or remove that dataset"
        )
    return Path(nnUNet_raw) / f"Dataset{number:03d}_{match[2]}"


def _check_pairs(source: Path) -> None:
    from nnunetv2.dataset_conversion.older_layouts import channels_per_case, nifti_names, require_pairs

    images, labels = (nifti_names(source / name, NOT_IMAGES) for name in ("imagesTr", "labelsTr"))
    if images and images != labels and sorted(channels_per_case(images)) == labels:
        raise UsageError(
            f"The images in {source} have channel numbers (CASE_0000.nii.gz), so it is a dataset of nnU-Net v1; "
            f"convert it with nnUNetv2_convert_old_nnUNet_dataset"
        )
    require_pairs(images, labels, source)


def _split_images(source: Path, target: Path, channel_names: dict[str, str], num_processes: int) -> None:
    from nnunetv2.dataset_conversion.older_layouts import nifti_names, require_channels
    from nnunetv2.utilities.processes.case_pool import map_cases

    cases, jobs = [], []
    for folder in ("imagesTr", "imagesTs"):
        if (source / folder).is_dir():
            (target / folder).mkdir()
            names = nifti_names(source / folder, NOT_IMAGES)
            cases += [f"{folder}/{name}" for name in names]
            jobs += [(str(source / folder / f"{name}.nii.gz"), str(target / folder)) for name in names]
    num_channels = map_cases(
        split_4d_nifti, jobs, num_processes, names=cases, description="Splitting images", show_progress=True
    )
    for case, number in zip(cases, num_channels, strict=True):
        require_channels({case: number}, channel_names, source)


def _copy_labels(source: Path, target: Path) -> None:
    import shutil

    from nnunetv2.dataset_conversion.older_layouts import nifti_names
    from nnunetv2.imageio.nifti_integrity import check_nifti

    target.mkdir()
    for name in nifti_names(source, NOT_IMAGES):
        check_nifti(source / f"{name}.nii.gz")
        shutil.copyfile(source / f"{name}.nii.gz", target / f"{name}.nii.gz")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_convert_MSD_dataset",
        description="Convert a task of the Medical Segmentation Decathlon into nnUNet_raw.",
    )
    parser.add_argument(
        "-i",
        type=str,
        required=True,
        help="the unpacked task under its original name, for example: data/Task04_Hippocampus (for datasets of "
        "nnU-Net v1 use nnUNetv2_convert_old_nnUNet_dataset)",
    )
    parser.add_argument(
        "-overwrite_id", type=int, default=None, metavar="ID", help="number of the new dataset; default: the task's"
    )
    parser.add_argument(
        "-np", type=int, default=get_default_num_processes(), help="maximum number of processes; default: %(default)s"
    )
    return parser


@command
def entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    convert_msd_dataset(args.i, args.overwrite_id, args.np)

"""The images of the training cases, to show beside their segmentations."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets


def image_files(dataset_name: str) -> dict[str, tuple[Path, ...]]:
    """Files of every training case of a dataset, one per channel; nothing where the raw dataset is not at hand."""
    if not nnUNet_raw.is_set():
        return {}
    folder = Path(nnUNet_raw) / dataset_name
    if not (folder / "dataset.json").is_file():
        return {}
    cases = get_filenames_of_train_images_and_targets(folder)
    return {case: tuple(map(Path, files["images"])) for case, files in cases.items()}

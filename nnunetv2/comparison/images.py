"""The images of the training cases, to show beside their segmentations."""

from __future__ import annotations

import logging
from pathlib import Path

from nnunetv2.errors import NNUNetError
from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

_log = logging.getLogger(__name__)


def image_files(dataset_name: str) -> dict[str, tuple[Path, ...]]:
    """Files of every training case of a dataset, one per channel; nothing where the raw dataset is not at hand.

    A raw dataset without images is one warning: a comparison does not need them.
    """
    if not nnUNet_raw.is_set():
        return {}
    folder = Path(nnUNet_raw) / dataset_name
    if not (folder / "dataset.json").is_file():
        return {}
    try:
        cases = get_filenames_of_train_images_and_targets(folder)
    except NNUNetError as err:
        _log.warning("Cases are shown without their images: %s", err)
        return {}
    return {case: tuple(map(Path, files["images"])) for case, files in cases.items()}

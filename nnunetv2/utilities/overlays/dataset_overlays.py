"""Draw all training cases of a dataset, raw or preprocessed."""

from __future__ import annotations

import logging
import os

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.preprocessing.stored_cases import infer_dataset_class
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.overlays.case_overlays import (
    multiprocessing_plot_overlay,
    multiprocessing_plot_overlay_preprocessed,
    require_channel,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

logger = logging.getLogger(__name__)


def generate_overlays_from_raw(
    dataset_name_or_id: int | str,
    output_folder: str,
    num_processes: int = 8,
    channel_idx: int = 0,
    overlay_intensity: float = 0.6,
) -> None:
    """Draw `CASE.png` for each training case of a raw dataset; `select_slice_to_plot2` selects the slice.

    Args:
        dataset_name_or_id: the dataset, by name or number.
        num_processes: upper limit for worker processes.
        channel_idx: index of the image file to draw.
        overlay_intensity: weight of the label colours, 0 to 1.

    Raises:
        UsageError: the dataset or channel does not exist, or the intensity is out of range.
        DataError: files are missing or cannot be read.
    """
    _require_intensity(overlay_intensity)
    folder = os.path.join(nnUNet_raw, maybe_convert_to_dataset_name(dataset_name_or_id))
    description = _existing(os.path.join(folder, "dataset.json"), "it describes a raw dataset, so check -d")
    dataset_json = read_dataset_json(description, trained=True)
    cases = get_filenames_of_train_images_and_targets(folder, dataset_json)
    if not cases:
        raise DataError(f"There is no training case in {folder}")
    for case in cases.values():
        require_channel(channel_idx, len(case["images"]))
    images = [case["images"][channel_idx] for case in cases.values()]
    labels = [case["label"] for case in cases.values()]
    reader_writer = determine_reader_writer_from_dataset_json(dataset_json, [*images, *labels])()
    os.makedirs(output_folder, exist_ok=True)
    pictures = [os.path.join(output_folder, f"{name}.png") for name in cases]
    multiprocessing_plot_overlay(images, labels, reader_writer, pictures, overlay_intensity, num_processes)
    logger.info("%d overlays are in %s", len(pictures), output_folder)


def generate_overlays_from_preprocessed(
    dataset_name_or_id: int | str,
    output_folder: str,
    num_processes: int = 8,
    channel_idx: int = 0,
    configuration: str | None = None,
    plans_identifier: str = "nnUNetPlans",
    overlay_intensity: float = 0.6,
) -> None:
    """Draw `CASE.png` for each preprocessed case; see `generate_overlays_from_raw`.

    Args:
        configuration: by default 3d_fullres if the plans have it, else 2d.
        plans_identifier: name of the plans.

    Raises:
        UsageError: the dataset, configuration or channel does not exist, the data are not preprocessed, or the
            intensity is out of range.
        DataError: a case cannot be read.
    """
    _require_intensity(overlay_intensity)
    folder = os.path.join(nnUNet_preprocessed, maybe_convert_to_dataset_name(dataset_name_or_id))
    cure = "run nnUNetv2_plan_and_preprocess, choose other plans (-p, -c), or draw the raw data with --use_raw"
    plans = PlansManager(
        _existing(os.path.join(folder, f"{check_name(plans_identifier, 'plans', UsageError)}.json"), cure)
    )
    if configuration is None:
        configuration = "3d_fullres" if "3d_fullres" in plans.available_configurations else "2d"
    cases = _existing(os.path.join(folder, plans.get_configuration(configuration).data_identifier), cure)
    dataset = infer_dataset_class(cases)(cases)
    os.makedirs(output_folder, exist_ok=True)
    multiprocessing_plot_overlay_preprocessed(dataset, output_folder, overlay_intensity, num_processes, channel_idx)
    logger.info("%d overlays are in %s", len(dataset.identifiers), output_folder)


def _require_intensity(overlay_intensity: float) -> None:
    if not 0 <= overlay_intensity <= 1:
        raise UsageError(f"The overlay intensity is {overlay_intensity}; it must be 0 to 1 (-overlay_intensity)")


def _existing(path: str, cure: str) -> str:
    if not os.path.exists(path):
        raise UsageError(f"There is no {path}; {cure}")
    return path

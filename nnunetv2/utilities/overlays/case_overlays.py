"""Draw one slice per case into picture files, for many cases in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.checked_reading import read_images, read_seg
from nnunetv2.preprocessing.stored_cases import nnUNetBaseDataset
from nnunetv2.utilities.overlays.image_overlay import generate_overlay
from nnunetv2.utilities.overlays.slice_choice import select_slice_to_plot2
from nnunetv2.utilities.processes.case_pool import map_cases


def plot_overlay(
    image_file: str,
    segmentation_file: str,
    image_reader_writer: BaseReaderWriter,
    output_file: str,
    overlay_intensity: float = 0.6,
) -> None:
    """Draw one slice of an image file (of its first channel) with its labels.

    Args:
        output_file: picture to write; the ending selects the format.
        overlay_intensity: weight of the label colour.

    Raises:
        DataError: a file cannot be read, or image and labels have different shapes.
    """
    image = read_images(image_reader_writer, (image_file,))[0][0]
    segmentation = read_seg(image_reader_writer, segmentation_file)[0][0]
    if image.shape != segmentation.shape:
        raise DataError(
            f"{image_file} has shape {list(image.shape)} and {segmentation_file} {list(segmentation.shape)}; "
            f"they must be equal"
        )
    _draw(image, segmentation, output_file, overlay_intensity)


def plot_overlay_preprocessed(
    dataset: nnUNetBaseDataset, k: str, output_folder: str, overlay_intensity: float = 0.6, channel_idx: int = 0
) -> None:
    """Draw one slice of the preprocessed case `k` with its labels to `output_folder/k.png`.

    Raises:
        UsageError: the case has no channel `channel_idx`.
        DataError: the case cannot be read.
    """
    data, segmentation, _, _ = dataset.load_case(k)
    require_channel(channel_idx, data.shape[0])
    labels = np.maximum(segmentation[0], 0)  # -1 marks voxels outside the nonzero region
    _draw(data[channel_idx], labels, os.path.join(output_folder, f"{k}.png"), overlay_intensity)


def _draw(image: np.ndarray, segmentation: np.ndarray, output_file: str, overlay_intensity: float) -> None:
    chosen = select_slice_to_plot2(image, segmentation)
    picture = generate_overlay(image[chosen], segmentation[chosen], overlay_intensity=overlay_intensity)
    with replace_when_complete(output_file) as temporary:
        Image.fromarray(picture).save(temporary)


def require_channel(channel_idx: int, num_channels: int) -> None:
    if not 0 <= channel_idx < num_channels:
        raise UsageError(f"Channel {channel_idx} was asked for (-channel_idx); there are 0 to {num_channels - 1}")


def multiprocessing_plot_overlay(
    list_of_image_files: Sequence[str],
    list_of_seg_files: Sequence[str],
    image_reader_writer: BaseReaderWriter,
    list_of_output_files: Sequence[str],
    overlay_intensity: float,
    num_processes: int = 8,
) -> None:
    """Call `plot_overlay` for each triple of image, segmentation and picture, in parallel; see `map_cases`."""
    files = zip(list_of_image_files, list_of_seg_files, list_of_output_files, strict=True)
    jobs = [(image, labels, image_reader_writer, output, overlay_intensity) for image, labels, output in files]
    _draw_all(plot_overlay, jobs, num_processes, [Path(output).stem for output in list_of_output_files])


def multiprocessing_plot_overlay_preprocessed(
    dataset: nnUNetBaseDataset,
    output_folder: str,
    overlay_intensity: float,
    num_processes: int = 8,
    channel_idx: int = 0,
) -> None:
    """Call `plot_overlay_preprocessed` for each case of the dataset, in parallel; see `map_cases`."""
    jobs = [(dataset, case, output_folder, overlay_intensity, channel_idx) for case in dataset.identifiers]
    _draw_all(plot_overlay_preprocessed, jobs, num_processes, dataset.identifiers)


def _draw_all(function: Callable[..., None], jobs: list[tuple], num_processes: int, names: Sequence[str]) -> None:
    for _ in map_cases(function, jobs, num_processes, names=names, description="Drawing", show_progress=True):
        pass

"""Convert logits on the network's grid to a segmentation on the grid of the original image, and write it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from nnunetv2.errors import UsageError
from nnunetv2.inference.device_labels import labels_on_device
from nnunetv2.preprocessing.chunk_shapes import comp_blosc2_params
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.label_handling.running_argmax import RunningArgmax
from nnunetv2.utilities.out_of_memory import is_out_of_memory
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.probability_files import remove_probabilities, write_probabilities

logger = logging.getLogger(__name__)

Logits = torch.Tensor | np.ndarray
Resampling = Callable[[Logits], Logits]

# Resampled logits of many classes can be far larger than the image, so at most this many values are held at a time, in
# groups of whole classes. Larger groups are no faster.
MAX_VALUES_AT_A_TIME = 2**24


def convert_predicted_logits_to_segmentation_with_correct_shape(
    predicted_logits: Logits,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    label_manager: LabelManager,
    properties_dict: dict[str, Any],
    return_probabilities: bool = False,
    num_threads_torch: int | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Convert logits to a segmentation and revert the preprocessing: resampling, cropping and transposition.

    Args:
        predicted_logits: (K, *spatial) on the grid of the preprocessed image.
        properties_dict: recorded by the preprocessing of the case.
        num_threads_torch: number of torch threads during the call; None keeps the current one.

    Returns:
        Labels (Z, Y, X) on the grid of the original image, uint8 (uint16 from 255 labels on); with
        `return_probabilities` also the scores (K, Z, Y, X), float32.
    """
    shape = properties_dict["shape_after_cropping_and_before_resampling"]
    spacings = _spacings(plans_manager, configuration_manager, properties_dict)

    def resample(logits: Logits) -> Logits:
        return configuration_manager.resampling_fn_probabilities(logits, shape, *spacings)

    with _torch_threads(num_threads_torch):
        if not return_probabilities:
            labels = _resample_to_labels(predicted_logits, shape, resample, label_manager)
            return revert_cropping_and_transposition(labels, plans_manager, label_manager, properties_dict)
        scores = label_manager.apply_inference_nonlin(resample(predicted_logits))
        labels = label_manager.convert_probabilities_to_segmentation(scores)
        scores = label_manager.revert_cropping_on_probabilities(
            scores, properties_dict["bbox_used_for_cropping"], properties_dict["shape_before_cropping"]
        )
        axes = [0, *(axis + 1 for axis in plans_manager.transpose_backward)]
        segmentation = revert_cropping_and_transposition(labels, plans_manager, label_manager, properties_dict)
        return segmentation, _as_numpy(scores).transpose(axes)


def convert_logits_on_device(
    logits: torch.Tensor,
    device: torch.device,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    label_manager: LabelManager,
    properties_dict: dict[str, Any],
) -> np.ndarray | None:
    """Convert logits to labels on a device, from which only the labels are copied.

    Args:
        logits: (K, *spatial), on the device or in main memory.

    Returns:
        Labels on the grid of the cropped image, in the axis order of the network; None if they must be computed on the
        CPU: the plans name another resampling than the default one, or memory does not suffice.
    """
    if not _allows_groups(label_manager) or len(logits) != label_manager.num_segmentation_heads:
        return None
    shape = properties_dict["shape_after_cropping_and_before_resampling"]
    spacings = _spacings(plans_manager, configuration_manager, properties_dict)
    return labels_on_device(
        logits, device, shape, configuration_manager.resampling_fn_probabilities, spacings, label_manager
    )


def revert_cropping_and_transposition(
    labels: Logits, plans_manager: PlansManager, label_manager: LabelManager, properties: dict[str, Any]
) -> np.ndarray:
    """Paste the labels of the crop into the whole image and restore the axis order of the file."""
    whole = np.zeros(properties["shape_before_cropping"], dtype=_label_type(label_manager))
    whole[tuple(slice(start, end) for start, end in properties["bbox_used_for_cropping"])] = _as_numpy(labels)
    return whole.transpose(plans_manager.transpose_backward)


def _spacings(
    plans_manager: PlansManager, configuration_manager: ConfigurationManager, properties: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """Spacings of the preprocessed and of the original grid; a 2D configuration keeps that of the first axis."""
    original = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    missing = len(original) - len(configuration_manager.spacing)
    return [*original[:missing], *configuration_manager.spacing], original


def _resample_to_labels(
    logits: Logits, shape: Sequence[int], resample: Resampling, label_manager: LabelManager
) -> Logits:
    """Resample logits (K, *spatial) and convert them to labels, in groups of classes if all would need too much memory.

    The labels are the same: groups track the running maximum and its class, or paint their regions one after the other.
    """
    num_at_a_time = len(logits)
    if _allows_groups(label_manager) and len(logits) == label_manager.num_segmentation_heads:
        num_at_a_time = min(num_at_a_time, max(1, MAX_VALUES_AT_A_TIME // math.prod(shape)))
    while True:
        try:
            return _labels_of_groups(logits, num_at_a_time, resample, label_manager)
        except (RuntimeError, MemoryError) as err:
            if num_at_a_time == 1 or not is_out_of_memory(err):
                raise
        num_at_a_time = max(1, num_at_a_time // 4)
        logger.warning("Memory does not suffice to resample all classes; going on with %d at a time", num_at_a_time)


def _allows_groups(label_manager: LabelManager) -> bool:
    """Whether groups of classes give the labels that all of them give; a label manager of a user may do otherwise."""
    conversions = ("convert_logits_to_segmentation", "convert_probabilities_to_segmentation", "apply_inference_nonlin")
    if any(getattr(type(label_manager), name) is not getattr(LabelManager, name) for name in conversions):
        return False
    return not label_manager.has_regions or label_manager.inference_nonlin is torch.sigmoid


def _labels_of_groups(logits: Logits, num_at_a_time: int, resample: Resampling, label_manager: LabelManager) -> Logits:
    if len(logits) <= num_at_a_time:
        return label_manager.convert_logits_to_segmentation(resample(logits))
    groups = (
        (first, _as_numpy(resample(logits[first : first + num_at_a_time])))
        for first in range(0, len(logits), num_at_a_time)
    )
    return _regions_of(groups, label_manager) if label_manager.has_regions else _winners_of(groups, len(logits))


def _winners_of(groups: Iterator[tuple[int, np.ndarray]], num_classes: int) -> np.ndarray:
    argmax = RunningArgmax(num_classes)
    for _, group in groups:
        argmax.add(group)
    return argmax.labels


def _regions_of(groups: Iterator[tuple[int, np.ndarray]], label_manager: LabelManager) -> np.ndarray:
    """Paint the regions one over the other, in their order."""
    labels = None
    for first, group in groups:
        scores = _as_numpy(label_manager.apply_inference_nonlin(group))
        if labels is None:
            labels = np.zeros(scores.shape[1:], dtype=_label_type(label_manager))
        for score, label in zip(scores, label_manager.regions_class_order[first:], strict=False):
            labels[score > 0.5] = label
    return labels


def _label_type(label_manager: LabelManager) -> type[np.unsignedinteger]:
    return np.uint8 if len(label_manager.foreground_labels) < 255 else np.uint16


def _as_numpy(array: Logits) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else array


@contextmanager
def _torch_threads(number: int | None) -> Iterator[None]:
    if number is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def export_prediction_from_logits(
    predicted_array_or_file: Logits,
    properties_dict: dict[str, Any],
    configuration_manager: ConfigurationManager,
    plans_manager: PlansManager,
    dataset_json_dict_or_file: dict | str,
    output_file_truncated: str,
    save_probabilities: bool = False,
    num_threads_torch: int | None = None,
    *,
    return_prediction: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray] | None:
    """Write the segmentation of a case; see `convert_predicted_logits_to_segmentation_with_correct_shape`.

    The segmentation is written last: if it exists, all files of the case are complete.

    Args:
        output_file_truncated: path of the segmentation without its ending.
        save_probabilities: also write the scores to `.npz`, under the name `probabilities`, and the properties to
            `.pkl`. If False, those of an older segmentation of the case are removed.
        return_prediction: also return what is written.

    Returns:
        The segmentation, with `save_probabilities` the pair (segmentation, scores); None without `return_prediction`.
    """
    dataset_json = _loaded(dataset_json_dict_or_file)
    converted = convert_predicted_logits_to_segmentation_with_correct_shape(
        predicted_array_or_file,
        plans_manager,
        configuration_manager,
        plans_manager.get_label_manager(dataset_json),
        properties_dict,
        return_probabilities=save_probabilities,
        num_threads_torch=num_threads_torch,
    )
    segmentation = converted
    if save_probabilities:
        segmentation, scores = converted
        write_probabilities(scores, properties_dict, output_file_truncated)
    else:
        remove_probabilities(output_file_truncated)
    _write_segmentation(segmentation, properties_dict, plans_manager, dataset_json, output_file_truncated)
    return converted if return_prediction else None


def export_labels(
    labels: np.ndarray,
    properties_dict: dict[str, Any],
    plans_manager: PlansManager,
    dataset_json: dict,
    output_file_truncated: str,
    *,
    return_prediction: bool = False,
) -> np.ndarray | None:
    """Write what `convert_logits_on_device` returns; otherwise like `export_prediction_from_logits`."""
    label_manager = plans_manager.get_label_manager(dataset_json)
    segmentation = revert_cropping_and_transposition(labels, plans_manager, label_manager, properties_dict)
    remove_probabilities(output_file_truncated)
    _write_segmentation(segmentation, properties_dict, plans_manager, dataset_json, output_file_truncated)
    return segmentation if return_prediction else None


def _write_segmentation(
    segmentation: np.ndarray,
    properties_dict: dict[str, Any],
    plans_manager: PlansManager,
    dataset_json: dict,
    output_file_truncated: str,
) -> None:
    writer = plans_manager.image_reader_writer_class()
    try:
        writer.write_seg(segmentation, output_file_truncated + dataset_json["file_ending"], properties_dict)
    except KeyError as err:
        raise UsageError(
            f"{type(writer).__name__} cannot write the segmentation: the properties of the image have no {err}; give "
            f"those that its read_images returns, or no output file"
        ) from err


def resample_and_save(
    predicted: Logits,
    target_shape: Sequence[int],
    output_file: str,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    properties_dict: dict[str, Any],
    dataset_json_dict_or_file: dict | str,
    num_threads_torch: int | None = None,
    dataset_class: type | None = None,
) -> None:
    """Write a segmentation as training data of the next cascade stage, on the grid of that stage.

    Args:
        predicted: logits (K, *spatial) on the grid of `configuration_manager`.
        target_shape: spatial shape of the case as preprocessed for the next stage.
        output_file: path without ending.
        dataset_class: storage format of the next stage's cases; None uses `nnUNetDatasetBlosc2`.
    """
    from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2  # imports blosc2

    label_manager = plans_manager.get_label_manager(_loaded(dataset_json_dict_or_file))
    spacing, _ = _spacings(plans_manager, configuration_manager, properties_dict)

    def resample(logits: Logits) -> Logits:
        # As upstream: spacings only decide whether to resample one axis separately; this stage's serve for both grids.
        return configuration_manager.resampling_fn_probabilities(logits, target_shape, spacing, spacing)

    with _torch_threads(num_threads_torch):
        labels = _resample_to_labels(predicted, target_shape, resample, label_manager)
    segmentation = _as_numpy(labels).astype(_label_type(label_manager))
    dataset_class = dataset_class or nnUNetDatasetBlosc2
    if dataset_class is not nnUNetDatasetBlosc2:
        dataset_class.save_seg(segmentation, output_file)
        return
    blocks, chunks = comp_blosc2_params(
        (1, *segmentation.shape), tuple(configuration_manager.patch_size), segmentation.itemsize
    )
    nnUNetDatasetBlosc2.save_seg(segmentation, output_file, chunks_seg=chunks[1:], blocks_seg=blocks[1:])


def _loaded(dataset_json: dict | str | os.PathLike) -> dict:
    return dataset_json if isinstance(dataset_json, dict) else read_dataset_json(dataset_json, trained=True)

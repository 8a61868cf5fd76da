"""Interpret the labels of a dataset: classes or overlapping regions, ignored voxels, conversion of scores to labels.

torch is imported only where tensors are: the processes that preprocess need none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.dataset_json import channel_names
from nnunetv2.utilities.label_handling.label_declaration import (
    check_declaration,
    has_any_region,
    members,
    only_background,
)
from nnunetv2.utilities.label_handling.running_argmax import argmax_of_classes

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor

Label = int
Region = int | tuple[int, ...]

IGNORE = "ignore"


class LabelManager:
    """The labels of one dataset.

    If all labels are integers, there is one output per class, background included. If any label is a list of several
    integers, all foreground labels are *regions*: one output each, which may overlap. The label `ignore` marks voxels
    without annotation and has no output.

    Args:
        label_dict: the entry `labels` of dataset.json.
        regions_class_order: integer that each region writes, in the order of the foreground entries of `labels`;
            where regions overlap, the later one wins. Only for datasets with regions.
        force_use_labels: treat a dataset with regions as one with plain labels.
        inference_nonlin: maps logits (K, ...) to scores in 0..1; default softmax, or sigmoid with regions.
        allow_lost_regions: accept an order from which regions cannot be recovered; for models that were trained so.

    Raises:
        DataError: the declaration of the labels is invalid, or the order loses regions.
    """

    def __init__(
        self,
        label_dict: dict[str, int | Sequence[int]],
        regions_class_order: Sequence[int] | None,
        force_use_labels: bool = False,
        inference_nonlin: Callable[[torch.Tensor], torch.Tensor] | None = None,
        *,
        allow_lost_regions: bool = False,
    ) -> None:
        self.label_dict = label_dict
        self.regions_class_order = regions_class_order
        self._force_use_labels = force_use_labels
        self._allow_lost_regions = allow_lost_regions
        self._sanity_check(label_dict)
        if inference_nonlin is not None:
            self.inference_nonlin = inference_nonlin

    @functools.cached_property
    def inference_nonlin(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Maps logits (K, ...) to scores in 0..1."""
        import torch

        from nnunetv2.utilities.helpers import softmax_helper_dim0

        return torch.sigmoid if self.has_regions else softmax_helper_dim0

    def _sanity_check(self, label_dict: dict[str, int | Sequence[int]]) -> None:
        check_declaration(
            label_dict,
            self.regions_class_order,
            use_regions=not self._force_use_labels,
            allow_lost_regions=self._allow_lost_regions,
        )

    def _get_all_labels(self) -> list[Label]:
        used = {value for name, entry in self.label_dict.items() if name != IGNORE for value in members(entry)}
        return sorted(used)

    def _get_regions(self) -> list[Region] | None:
        if not self.has_regions:
            return None
        foreground = [entry for name, entry in self.label_dict.items() if name != IGNORE and not only_background(entry)]
        return [tuple(entry) if isinstance(entry, list) else entry for entry in foreground]

    def _determine_ignore_label(self) -> Label | None:
        return self.label_dict.get(IGNORE)

    @functools.cached_property
    def has_regions(self) -> bool:
        return not self._force_use_labels and has_any_region(self.label_dict)

    @property
    def has_ignore_label(self) -> bool:
        return self.ignore_label is not None

    @functools.cached_property
    def ignore_label(self) -> Label | None:
        return self._determine_ignore_label()

    @functools.cached_property
    def all_labels(self) -> list[Label]:
        """Integer labels in ascending order, including background, excluding the ignore label."""
        return self._get_all_labels()

    @functools.cached_property
    def all_regions(self) -> list[Region] | None:
        """Foreground regions in the order of `labels`; None for a dataset without regions."""
        return self._get_regions()

    @property
    def foreground_labels(self) -> list[Label]:
        return self.filter_background(self.all_labels)

    @property
    def foreground_regions(self) -> list[Region]:
        return self.filter_background(self.all_regions or [])

    @property
    def num_segmentation_heads(self) -> int:
        """Number of network outputs K for this dataset."""
        return len(self.foreground_regions) if self.has_regions else len(self.all_labels)

    @staticmethod
    def filter_background(classes_or_regions: Sequence[Region]) -> list[Region]:
        """Drop entries that contain only background; a region that contains more is kept."""
        return [entry for entry in classes_or_regions if not only_background(entry)]

    def apply_inference_nonlin(self, logits: Array) -> torch.Tensor:
        """Convert logits (K, ...) to scores (K, ...) in 0..1, float32, without gradients."""
        import torch

        with torch.no_grad():
            return self.inference_nonlin(torch.as_tensor(logits).float())

    def convert_probabilities_to_segmentation(self, predicted_probabilities: Array) -> Array:
        """Convert scores (K, ...) to a label map (...) by argmax, or with regions by a threshold of 0.5.

        Returns:
            Labels as the same kind of array: int64, or with regions uint16 (numpy) or int16 (torch).
        """
        if not (isinstance(predicted_probabilities, np.ndarray) or _is_tensor(predicted_probabilities)):
            raise TypeError(f"expected a numpy array or a tensor, got {type(predicted_probabilities).__name__}")
        if predicted_probabilities.shape[0] != self.num_segmentation_heads:
            raise ValueError(
                f"scores of shape {tuple(predicted_probabilities.shape)} do not fit this dataset: "
                f"the first axis must have one entry per output, that is {self.num_segmentation_heads}"
            )
        if self.has_regions:
            return self._paint_regions(predicted_probabilities)
        return _argmax_first_axis(predicted_probabilities)

    def _paint_regions(self, scores: Array) -> Array:
        if isinstance(scores, np.ndarray):
            segmentation = np.zeros(scores.shape[1:], dtype=np.uint16)
        else:
            import torch

            # torch supports few operations on uint16
            segmentation = torch.zeros(scores.shape[1:], dtype=torch.int16, device=scores.device)
        for score, value in zip(scores, self.regions_class_order, strict=True):
            segmentation[score > 0.5] = value
        return segmentation

    def convert_logits_to_segmentation(self, predicted_logits: Array) -> Array:
        """Convert logits (K, ...) to a label map (...); see `convert_probabilities_to_segmentation`."""
        if not self.has_regions:  # argmax is the same for logits and probabilities
            return self.convert_probabilities_to_segmentation(predicted_logits)
        scores = self.apply_inference_nonlin(predicted_logits)
        if isinstance(predicted_logits, np.ndarray):
            scores = scores.numpy()
        return self.convert_probabilities_to_segmentation(scores)

    def revert_cropping_on_probabilities(
        self, predicted_probabilities: Array, bbox: Sequence[Sequence[int]], original_shape: Sequence[int]
    ) -> Array:
        """Paste scores (K, ...) of a crop into the whole image.

        Outside the crop the scores denote background: 1 for class 0, and 0 for every region. Not meant for logits.

        Args:
            bbox: [start, end) of the crop on each axis.
            original_shape: shape of the whole image, without the output axis.
        """
        shape = (predicted_probabilities.shape[0], *original_shape)
        if isinstance(predicted_probabilities, np.ndarray):
            whole = np.zeros(shape, dtype=predicted_probabilities.dtype)
        else:
            import torch

            whole = torch.zeros(shape, dtype=predicted_probabilities.dtype)
        if not self.has_regions:
            whole[0] = 1
        whole[(slice(None), *(slice(start, end) for start, end in bbox))] = predicted_probabilities
        return whole


def _argmax_first_axis(scores: Array) -> Array:
    if isinstance(scores, np.ndarray):
        return argmax_of_classes(scores)
    import torch

    if scores.device.type == "cpu" and scores.dtype != torch.bfloat16:
        return torch.from_numpy(argmax_of_classes(scores.detach().numpy()))  # torch is slower, even than numpy
    return scores.argmax(0)


def _is_tensor(values: object) -> bool:
    import torch

    return isinstance(values, torch.Tensor)


def get_labelmanager_class_from_plans(plans: dict) -> type[LabelManager]:
    """Class that the plans name as `label_manager`, by default `LabelManager`."""
    return find_by_name("label manager", plans.get("label_manager", "LabelManager"))


def convert_labelmap_to_one_hot(
    segmentation: Array, all_labels: Sequence[int] | Array, output_dtype: Any = None
) -> Array:
    """Create one mask per label, stacked along a new first axis; values not among the labels are in no mask.

    Args:
        segmentation: integer label map of any shape, numpy array or tensor; masks stay on the tensor's device.
        all_labels: labels in the order of the masks; gaps are allowed.
        output_dtype: type of the masks, by default uint8 (uint16 if a label is 255 or more).
    """
    shape = (len(all_labels), *segmentation.shape)
    wide = max(all_labels) >= 255
    if isinstance(segmentation, np.ndarray):
        masks = np.empty(shape, dtype=output_dtype or (np.uint16 if wide else np.uint8))
    else:
        import torch

        dtype = output_dtype or (torch.uint16 if wide else torch.uint8)
        masks = torch.empty(shape, dtype=dtype, device=segmentation.device)
    for mask, label in zip(masks, all_labels, strict=True):
        mask[...] = segmentation == label
    return masks


class _Configuration(Protocol):
    previous_stage_name: str | None


class _Plans(Protocol):
    def get_configuration(self, configuration_name: str) -> _Configuration: ...

    def get_label_manager(self, dataset_json: dict) -> LabelManager: ...


def determine_num_input_channels(
    plans_manager: _Plans, configuration_or_config_manager: str | _Configuration, dataset_json: dict
) -> int:
    """Number of network input channels: image channels, plus in a cascade one per foreground label.

    Takes a `PlansManager` and a `ConfigurationManager`; these import this module, hence the protocols.
    """
    configuration = configuration_or_config_manager
    if isinstance(configuration, str):
        configuration = plans_manager.get_configuration(configuration)
    channels = channel_names(dataset_json)
    if configuration.previous_stage_name is None:
        return len(channels)
    return len(channels) + len(plans_manager.get_label_manager(dataset_json).foreground_labels)

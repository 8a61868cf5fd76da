"""Prepare the network input of one case: preprocessed channels, plus in a cascade the one-hot previous-stage labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.checked_reading import read_seg
from nnunetv2.inference import array_checks
from nnunetv2.utilities.channel_files import check_channel_files
from nnunetv2.utilities.dataset_json import channel_names
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

Item = dict[str, Any]
"""A preprocessed case: `data` (C, *spatial) float32, `data_properties`, `ofile` (output path or None)."""


class CasePreprocessor:
    """Prepares the network input of one case; picklable, so that it can be sent to other processes."""

    def __init__(
        self,
        plans_manager: PlansManager,
        dataset_json: dict,
        configuration_manager: ConfigurationManager,
        verbose: bool = False,
        preprocessor: Any = None,
    ) -> None:
        self.plans_manager = plans_manager
        self.dataset_json = dataset_json
        self.configuration_manager = configuration_manager
        self.preprocessor = preprocessor or configuration_manager.preprocessor_class(verbose=verbose)

    def from_files(self, files: Sequence[str], previous_stage: str | None, ofile: str | None) -> Item:
        """Read and preprocess a case.

        Args:
            files: one image per channel.
            previous_stage: label map of the previous cascade stage.
            ofile: output path without ending, or None.

        Raises:
            DataError: files are missing, unusable, or do not match the model's channels; or `previous_stage` has
                values that are not labels.
        """
        if previous_stage is not None and not os.path.isfile(previous_stage):
            stage = self.configuration_manager.previous_stage_name
            raise DataError(f"There is no {previous_stage}; segment the image with {stage} first, into that folder")
        check_channel_files(files, list(channel_names(self.dataset_json).values()))
        if previous_stage is not None:
            self._check_labels(
                read_seg(self.plans_manager.image_reader_writer_class(), previous_stage)[0], previous_stage
            )
        managers = (self.plans_manager, self.configuration_manager, self.dataset_json)
        data, seg, properties = self.preprocessor.run_case(list(files), previous_stage, *managers)
        return self._item(data, seg if previous_stage is not None else None, properties, ofile)

    def from_npy(
        self, image: np.ndarray, previous_stage: np.ndarray | None, properties: dict, ofile: str | None
    ) -> Item:
        """Preprocess an image (C, Z, Y, X); `previous_stage` is a label map (1, Z, Y, X) or None.

        Raises:
            UsageError: an argument is not an array, has no spacing, or does not suit the model.
            DataError: shapes or values are invalid.
        """
        stage = self.configuration_manager.previous_stage_name
        if (previous_stage is None) != (stage is None):
            needs = "no previous segmentation" if stage is None else f"the segmentation by {stage} beside the image"
            raise UsageError(f"This model needs {needs}; see the argument for the previous stage")
        image = array_checks.checked_image(image, len(channel_names(self.dataset_json)))
        array_checks.check_properties(properties)
        if previous_stage is not None:
            previous_stage = array_checks.checked_previous_stage(previous_stage, image)
            self._check_labels(previous_stage, "The array of the previous stage")
        managers = (self.plans_manager, self.configuration_manager, self.dataset_json)
        data, seg, properties = self.preprocessor.run_case_npy(image, previous_stage, dict(properties), *managers)
        return self._item(data, seg if previous_stage is not None else None, properties, ofile)

    def _check_labels(self, previous_stage: np.ndarray, name: str) -> None:
        """Check label values before preprocessing, which casts them to integers and is slow."""
        labels = self.plans_manager.get_label_manager(self.dataset_json)
        stage = self.configuration_manager.previous_stage_name
        accepted = {*labels.all_labels, *(labels.regions_class_order or ())}
        if labels.has_ignore_label:  # users may pass reference segmentations instead of predictions
            accepted.add(labels.ignore_label)
        array_checks.check_label_values(previous_stage, sorted(accepted), name, stage)

    def _item(self, data: np.ndarray, seg: np.ndarray | None, properties: dict, ofile: str | None) -> Item:
        data = np.asarray(data, dtype=np.float32)
        if seg is not None:
            labels = self.plans_manager.get_label_manager(self.dataset_json).foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(seg[0], labels, data.dtype)))
        wanted = determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)
        if len(data) != wanted:
            raise DataError(f"The image gives {len(data)} input channels where this model needs {wanted}")
        return {"data": np.ascontiguousarray(data), "data_properties": properties, "ofile": ofile}

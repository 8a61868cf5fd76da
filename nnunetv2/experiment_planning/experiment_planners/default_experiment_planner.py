"""The default planner: derives plans for the default U-Net from a dataset's fingerprint."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.errors import DataError, UsageError
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_file import read_fingerprint
from nnunetv2.experiment_planning.experiment_planners.feature_map_size import PLAIN_CONV_UNET, conv_feature_map_size
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    Topology,
    largest_fitting,
    unet_architecture,
)
from nnunetv2.experiment_planning.experiment_planners.plans_file import copy_dataset_files, write_plans
from nnunetv2.experiment_planning.experiment_planners.target_spacing import (
    axis_order,
    fullres_target_spacing,
    slightly_coarser,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_json import channel_names, read_dataset_json
from nnunetv2.utilities.json_export import json_ready
from nnunetv2.utilities.plans_handling.plans_files import require_plans_name
from nnunetv2.utilities.plans_handling.plans_schema import read_plans

logger = logging.getLogger(__name__)

_MIN_SIZE_RATIO_OF_LOWRES = 2  # a low-resolution stage with more than half the voxels is not worth training
_MASK_BELOW_RELATIVE_SIZE = 3 / 4  # if cropping removes more than a quarter, the background is considered empty
_LARGEST_ANISOTROPY = 10_000  # 2-D images have 999; from 11,585 on, a patch would be less than half a voxel thick


class ExperimentPlanner:
    """Plans `2d`, `3d_fullres`, and for large images `3d_lowres` and `3d_cascade_fullres`.

    Subclasses change the rules by the attributes below or by overriding a hook: `patch_is_too_large`,
    `encoder_depth_key`, `determine_resampling`, `determine_segmentation_softmax_export_fn`, `generate_data_identifier`.

    Args:
        dataset_name_or_id: for example 4 or "Dataset004_Hippocampus".
        gpu_memory_target_in_gb: GPU memory for which patch and batch size are planned; by default that of the planner's
            reference network.
        preprocessor_name: class of the preprocessor in the plans.
        plans_name: name of the plans file without ending; by default `default_plans_name`.
        overwrite_target_spacing: mm for each of the three axes; overrides the spacing of `3d_fullres`, from which the
            other configurations are derived.
        suppress_transpose: keep the axis order of the files.

    Raises:
        UsageError: there is no fingerprint yet, `overwrite_target_spacing` is not three numbers, the memory target is
            not above 0, or the plans name is invalid.
    """

    default_plans_name = "nnUNetPlans"
    UNet_class: str | type = PLAIN_CONV_UNET
    UNet_base_num_features = 32
    UNet_max_features_2d = 512
    UNet_max_features_3d = 320
    UNet_featuremap_min_edge_length = 4
    UNet_blocks_per_stage_encoder: tuple[int, ...] = (2,) * 14
    UNet_blocks_per_stage_decoder: tuple[int, ...] = (2,) * 13
    encoder_depth_key = "n_conv_per_stage"
    """Name of the network class's argument for `UNet_blocks_per_stage_encoder`."""

    # Feature map values of a reference network that fits with this batch size into this many GB.
    UNet_reference_val_2d = 85_000_000
    UNet_reference_val_3d = 560_000_000
    UNet_reference_val_corresp_bs_2d = 12
    UNet_reference_val_corresp_bs_3d = 2
    UNet_reference_val_corresp_GB: float = 8
    UNet_reference_com_nfeatures = 32

    UNet_min_batch_size = 2
    max_dataset_covered = 0.05
    """Maximum share of the dataset's voxels in a batch, against overfitting."""
    lowres_creation_threshold = 0.25
    """Minimum share of the median image in a full-resolution patch; below it, a low-resolution stage is planned."""
    anisotropy_threshold = ANISO_THRESHOLD

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        self.dataset_name = maybe_convert_to_dataset_name(dataset_name_or_id)
        self.raw_dataset_folder = os.path.join(nnUNet_raw, self.dataset_name)
        self.preprocessed_folder = os.path.join(nnUNet_preprocessed, self.dataset_name)
        self.dataset_json = read_dataset_json(os.path.join(self.raw_dataset_folder, "dataset.json"))
        self.dataset = get_filenames_of_train_images_and_targets(self.raw_dataset_folder, self.dataset_json)
        self.dataset_fingerprint = _read_fingerprint(self.preprocessed_folder)
        self.UNet_vram_target_GB = (
            self.UNet_reference_val_corresp_GB if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb
        )
        if not self.UNet_vram_target_GB > 0:
            raise UsageError(f"The GPU memory target is {gpu_memory_target_in_gb} GB; it must be above 0")
        self.preprocessor_name = preprocessor_name
        self.plans_identifier = require_plans_name(plans_name or self.default_plans_name)
        self.overwrite_target_spacing = _checked_spacing(overwrite_target_spacing)
        self.suppress_transpose = suppress_transpose
        self.plans: dict[str, Any] | None = None

    def determine_reader_writer(self) -> type:
        from nnunetv2.imageio.reader_writer_registry import reader_of_training_cases

        if not self.dataset:
            raise DataError(
                f"There is no training case in {self.raw_dataset_folder}/imagesTr: no file is named like "
                f"case_0000{self.dataset_json['file_ending']} (file_ending in dataset.json)"
            )
        return reader_of_training_cases(self.dataset_json, self.dataset)

    @staticmethod
    def static_estimate_VRAM_usage(  # noqa: N802
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Returns the number of values in all feature maps of one sample, a proxy for its GPU memory."""
        return conv_feature_map_size(
            patch_size, input_channels, output_channels, arch_class_name, arch_kwargs, arch_kwargs_req_import
        )

    def patch_is_too_large(self, estimate: int, reference: float, reference_batch_size: int) -> bool:
        """True if a network does not fit even with the smallest batch size.

        Args:
            estimate: feature map values of one sample.
            reference: feature map values that fit with `reference_batch_size`.
        """
        return estimate / reference_batch_size * 2 > reference

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict, Callable, dict]:
        """Hook: returns function and keyword arguments for resampling images, and the same for segmentations."""
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

        data = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        segmentation = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
        return resample_data_or_seg_to_shape, data, resample_data_or_seg_to_shape, segmentation

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict]:
        """Hook: returns function and keyword arguments for resampling predicted scores to the image's grid."""
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

        return resample_data_or_seg_to_shape, {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}

    def determine_fullres_target_spacing(self) -> np.ndarray:
        """Returns the spacing of `3d_fullres` in mm, in the axis order of the files."""
        if self.overwrite_target_spacing is not None:
            return np.array(self.overwrite_target_spacing)
        fingerprint = self.dataset_fingerprint
        return fullres_target_spacing(
            fingerprint["spacings"], fingerprint["shapes_after_crop"], self.anisotropy_threshold
        )

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Returns, per channel, the class name of the normalisation and whether the empty background stays zero."""
        from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

        schemes = [get_normalization_scheme(name) for name in self._channel_names().values()]
        has_empty_background = (
            self.dataset_fingerprint["median_relative_size_after_cropping"] < _MASK_BELOW_RELATIVE_SIZE
        )
        return [scheme.__name__ for scheme in schemes], [
            has_empty_background and scheme.leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true
            for scheme in schemes
        ]

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Returns the axis order for preprocessing, and its inverse."""
        if self.suppress_transpose:
            return [0, 1, 2], [0, 1, 2]
        spacing = self.determine_fullres_target_spacing()
        return axis_order(spacing, self._median_shape_at(spacing))

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Returns the folder name of the preprocessed cases; plans that share one must preprocess identically."""
        return f"{self.plans_identifier}_{configuration_name}"

    def get_plans_for_configuration(
        self,
        spacing: np.ndarray | Sequence[float],
        median_shape: np.ndarray | Sequence[float],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict,
    ) -> dict[str, Any]:
        """Plans one configuration.

        Args:
            spacing: mm per axis, two or three axes.
            median_shape: median shape of the images at that spacing, in voxels.
            data_identifier: folder name of the preprocessed cases.
            approximate_n_voxels_dataset: total number of voxels of all cases.
            _cache: memory estimates by patch size and strides, shared by the configurations of one dataset.
        """
        if not all(s > 0 for s in spacing):
            raise UsageError(f"The spacing {list(spacing)} is not possible; it must be above 0 along every axis")
        if max(spacing) > _LARGEST_ANISOTROPY * min(spacing):
            raise DataError(
                f"The spacing {[float(s) for s in spacing]} mm differs between axes by more than a factor of "
                f"{_LARGEST_ANISOTROPY}, for which there is no patch size; correct it in the headers of the images"
            )
        is_2d = len(spacing) == 2
        reference = (self.UNet_reference_val_2d if is_2d else self.UNet_reference_val_3d) * (
            self.UNet_vram_target_GB / self.UNet_reference_val_corresp_GB
        )
        reference_batch = self.UNet_reference_val_corresp_bs_2d if is_2d else self.UNet_reference_val_corresp_bs_3d

        def fits(candidate: Topology) -> bool:
            return not self.patch_is_too_large(self._memory(candidate, _cache), reference, reference_batch)

        topology = largest_fitting(spacing, median_shape, self.UNet_featuremap_min_edge_length, fits)
        batch_size = round(reference / self._memory(topology, _cache) * reference_batch)
        largest = round(approximate_n_voxels_dataset * self.max_dataset_covered / math.prod(topology.patch_size))
        resample_data, data_kwargs, resample_seg, seg_kwargs = self.determine_resampling()
        resample_scores, scores_kwargs = self.determine_segmentation_softmax_export_fn()
        schemes, use_mask = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        return {
            "data_identifier": data_identifier,
            "preprocessor_name": self.preprocessor_name,
            "batch_size": max(min(batch_size, largest), self.UNet_min_batch_size),
            "patch_size": topology.patch_size,
            "median_image_size_in_voxels": median_shape,
            "spacing": spacing,
            "normalization_schemes": schemes,
            "use_mask_for_norm": use_mask,
            "resampling_fn_data": resample_data.__name__,
            "resampling_fn_seg": resample_seg.__name__,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": seg_kwargs,
            "resampling_fn_probabilities": resample_scores.__name__,
            "resampling_fn_probabilities_kwargs": scores_kwargs,
            "architecture": self._architecture(topology),
        }

    def plan_experiment(self) -> dict[str, Any]:
        """Plans all configurations, writes the plans file, copies dataset.json next to it, and returns the plans."""
        forward, backward = self.determine_transpose()
        spacing = self.determine_fullres_target_spacing()
        median_shape = self._median_shape_at(spacing)[forward]
        configurations = self._plan_configurations(spacing[forward], median_shape)
        fingerprint = self.dataset_fingerprint
        median_spacing = np.median(fingerprint["spacings"], 0)[forward]
        original_shape = np.median(fingerprint["shapes_after_crop"], 0)[forward]
        plans = {
            "dataset_name": self.dataset_name,
            "plans_name": self.plans_identifier,
            "original_median_spacing_after_transp": median_spacing,
            "original_median_shape_after_transp": [round(size) for size in original_shape],
            "image_reader_writer": self.determine_reader_writer().__name__,
            "transpose_forward": forward,
            "transpose_backward": backward,
            "configurations": configurations,
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": fingerprint["foreground_intensity_properties_per_channel"],
        }
        copy_dataset_files(Path(self.raw_dataset_folder), Path(self.preprocessed_folder))
        self.save_plans(plans)
        return self.plans

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Writes the plans; keeps other configurations of an existing file."""
        plans_file = os.path.join(self.preprocessed_folder, f"{self.plans_identifier}.json")
        self.plans = write_plans(json_ready(plans), plans_file)

    def load_plans(self, fname: str) -> None:
        self.plans = read_plans(fname)

    def _plan_configurations(self, spacing: np.ndarray, median_shape: np.ndarray) -> dict[str, dict[str, Any]]:
        """Plans all configurations; spacing and shape are at full resolution, in transposed axis order."""
        cache: dict = {}
        volumes = {}
        if median_shape[0] != 1:  # datasets of 2-D images have no 3-D configurations
            volumes = self._plan_volumes(spacing, median_shape, cache)
        configurations = {**self._plan_slices(spacing, median_shape, cache, is_required=not volumes), **volumes}
        for name, plan in configurations.items():
            if "patch_size" in plan:
                logger.info("%s: patch size %s, batch size %d", name, list(plan["patch_size"]), plan["batch_size"])
        return configurations

    def _plan_slices(
        self, spacing: np.ndarray, median_shape: np.ndarray, cache: dict, *, is_required: bool
    ) -> dict[str, dict[str, Any]]:
        """Plans `2d`; without it if the slices are too small and it is not required."""
        num_voxels = self._voxels_of_dataset(median_shape)
        identifier = self.generate_data_identifier("2d")
        try:
            plan = self.get_plans_for_configuration(spacing[1:], median_shape[1:], identifier, num_voxels, cache)
        except DataError as err:
            if is_required:
                raise
            logger.warning("2d is left out. %s", err)
            return {}
        return {"2d": {**plan, "batch_dice": True}}

    def _plan_volumes(self, spacing: np.ndarray, median_shape: np.ndarray, cache: dict) -> dict[str, dict[str, Any]]:
        """Plans the 3-D configurations; none if the images are too small."""
        num_voxels = self._voxels_of_dataset(median_shape)
        identifier = self.generate_data_identifier("3d_fullres")
        try:
            fullres = self.get_plans_for_configuration(spacing, median_shape, identifier, num_voxels, cache)
        except DataError as err:
            logger.warning("3d_fullres is left out. %s", err)
            return {}
        lowres = self._plan_lowres(fullres, spacing, median_shape, cache)
        configurations = {"3d_fullres": {**fullres, "batch_dice": lowres is not None}}
        if lowres is None:
            return configurations
        return {
            "3d_lowres": {**lowres, "batch_dice": False, "next_stage": "3d_cascade_fullres"},
            **configurations,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        }

    def _plan_lowres(
        self, fullres: dict[str, Any], spacing: np.ndarray, median_shape: np.ndarray, cache: dict
    ) -> dict[str, Any] | None:
        """Coarsens the spacing until a patch covers enough of the median image; None if not needed."""
        num_voxels_fullres = np.prod(median_shape)
        plan, lowres_spacing, num_voxels = None, np.array(spacing, dtype=float), num_voxels_fullres
        num_voxels_in_patch = math.prod(fullres["patch_size"])
        while num_voxels_in_patch / num_voxels < self.lowres_creation_threshold:
            lowres_spacing = slightly_coarser(lowres_spacing)
            shape = spacing / lowres_spacing * median_shape
            num_voxels = np.prod(shape)
            plan = self.get_plans_for_configuration(
                lowres_spacing,
                tuple(round(size) for size in shape),
                self.generate_data_identifier("3d_lowres"),
                self._voxels_of_dataset(shape),
                cache,
            )
            num_voxels_in_patch = math.prod(plan["patch_size"])
        if plan is not None and num_voxels_fullres / num_voxels < _MIN_SIZE_RATIO_OF_LOWRES:
            logger.info("3d_lowres is left out: its images would be hardly smaller than those of 3d_fullres")
            return None
        return plan

    def _architecture(self, topology: Topology) -> dict[str, Any]:
        is_2d = len(topology.patch_size) == 2
        return unet_architecture(
            topology,
            self.UNet_class,
            base_features=self.UNet_base_num_features,
            max_features=self.UNet_max_features_2d if is_2d else self.UNet_max_features_3d,
            encoder_depths={self.encoder_depth_key: self.UNet_blocks_per_stage_encoder},
            decoder_depths=self.UNet_blocks_per_stage_decoder,
        )

    def _memory(self, topology: Topology, cache: dict) -> int:
        key = (topology.patch_size, topology.strides)
        if key not in cache:
            architecture = self._architecture(topology)
            cache[key] = self.static_estimate_VRAM_usage(
                topology.patch_size,
                len(self._channel_names()),
                len(self.dataset_json["labels"]),
                architecture["network_class_name"],
                architecture["arch_kwargs"],
                architecture["_kw_requires_import"],
            )
        return cache[key]

    def _channel_names(self) -> dict[str, str]:
        return channel_names(self.dataset_json)

    def _median_shape_at(self, spacing: np.ndarray) -> np.ndarray:
        from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

        fingerprint = self.dataset_fingerprint
        cases = zip(fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True)
        median = np.median([compute_new_shape(shape, old, spacing) for shape, old in cases], 0)
        # Slices of different thickness would otherwise become none, or several equal ones.
        are_slices = (np.vstack(fingerprint["shapes_after_crop"]) == 1).all(0)
        return np.where(are_slices, 1.0, median)

    def _voxels_of_dataset(self, median_shape: np.ndarray) -> float:
        return float(np.prod(median_shape) * self.dataset_json["numTraining"])


def _read_fingerprint(preprocessed_folder: str) -> dict[str, Any]:
    fingerprint_file = Path(preprocessed_folder, "dataset_fingerprint.json")
    if not fingerprint_file.is_file():
        raise UsageError(f"There is no {fingerprint_file}; run nnUNetv2_extract_fingerprint first")
    return read_fingerprint(fingerprint_file)


def _checked_spacing(spacing: Sequence[float] | None) -> list[float] | None:
    if spacing is None:
        return None
    try:
        numbers = [float(number) for number in spacing]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not all(number > 0 for number in numbers):
        raise UsageError(f"The target spacing is {spacing!r}; it must be three numbers above 0 (mm per axis)")
    return numbers

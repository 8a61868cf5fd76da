"""Preprocesses raw cases: crops, normalises and resamples them, and stores them for fast reading."""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dinov3.utils.atomic_files import replace_folder_when_complete
from dinov3.utils.folder_lock import locked_folder
from nnunetv2.errors import DataError, NNUNetError, UsageError
from nnunetv2.imageio.checked_reading import read_images, read_seg
from nnunetv2.imageio.nonfinite_voxels import count_nonfinite_voxels
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.preprocessing.chunk_shapes import comp_blosc2_params
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.label_values import declared_labels, label_problems
from nnunetv2.preprocessing.preprocessors.foreground_locations import sample_foreground_locations
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.channel_files import check_channels_of_file
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.dataset_json import channel_names, read_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.processes.case_pool import map_cases
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

logger = logging.getLogger(__name__)


class DefaultPreprocessor:
    """nnU-Net's preprocessing; plans name this class.

    A subclass may override any step, most often `modify_seg_fn`; plans then carry its name in `preprocessor_name`.

    Args:
        verbose: log the steps of each case.
    """

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose
        self.show_progress_bar = True

    def run_case_npy(
        self,
        data: np.ndarray,
        seg: np.ndarray | None,
        properties: dict,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Preprocesses a case in memory.

        Args:
            data: image as its reader returns it, `(C, X, Y, Z)`.
            seg: labels `(1, X, Y, Z)`, or None.
            properties: properties of the image; `spacing` (mm per axis of `data`) is required.
            plans_manager: defines the transposition.
            configuration_manager: defines normalisation and target spacing.
            dataset_json: content or path of dataset.json; names the classes whose locations are recorded.

        Returns:
            Image (float32), labels (int8, or int16 above 127; without `seg` 0 inside the nonzero region and -1
            outside), and a copy of the properties, extended by what is needed to undo the steps.

        Raises:
            DataError: image and labels differ in shape.
        """
        if seg is not None and data.shape[1:] != seg.shape[1:]:
            raise DataError(
                f"The image has {_dimensions(data)} voxels and its label {_dimensions(seg)}; they must be the same"
            )
        properties = dict(properties)
        axes = plans_manager.transpose_forward
        array_axes = [0, *(axis + 1 for axis in axes)]
        spacing = [properties["spacing"][axis] for axis in axes]
        data = np.asarray(data, dtype=np.float32).transpose(array_axes)
        cropped_seg = None if seg is None else seg.transpose(array_axes)

        properties["shape_before_cropping"] = data.shape[1:]
        data, cropped_seg, properties["bbox_used_for_cropping"] = crop_to_nonzero(data, cropped_seg)
        shape = data.shape[1:]
        properties["shape_after_cropping_and_before_resampling"] = shape

        # Normalise before resampling: interpolation would blur the border of the nonzero region.
        data = self._normalize(
            data, cropped_seg, configuration_manager, plans_manager.foreground_intensity_properties_per_channel
        )
        # 2-D configurations have no spacing for the first axis: the slice distance is kept.
        target = [*spacing[: len(spacing) - len(configuration_manager.spacing)], *configuration_manager.spacing]
        new_shape = compute_new_shape(shape, spacing, target)
        data = configuration_manager.resampling_fn_data(data, new_shape, spacing, target)
        resampled_seg = configuration_manager.resampling_fn_seg(cropped_seg, new_shape, spacing, target)
        if self.verbose:
            logger.info("Resampled from %s voxels of %s mm to %s of %s mm", shape, spacing, data.shape[1:], target)

        if seg is not None:
            if isinstance(dataset_json, (str, os.PathLike)):
                dataset_json = read_dataset_json(dataset_json)
            classes = _classes_to_locate(plans_manager.get_label_manager(dataset_json))
            properties["class_locations"] = self._sample_foreground_locations(
                resampled_seg, classes, verbose=self.verbose
            )
            resampled_seg = self.modify_seg_fn(resampled_seg, plans_manager, dataset_json, configuration_manager)
        return data, resampled_seg.astype(np.int16 if np.max(resampled_seg) > 127 else np.int8), properties

    def run_case(
        self,
        image_files: Sequence[str],
        seg_file: str | None,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Reads and preprocesses a case; returns the same as `run_case_npy`.

        Args:
            image_files: one file per channel, or one with all channels.
            seg_file: label file; None in prediction.
            plans_manager: defines the reader.
            configuration_manager: the configuration to preprocess for.
            dataset_json: content or path of dataset.json.

        Raises:
            DataError: a file cannot be read, has NaN or infinite voxels or labels that dataset.json does not name, or
                image and label differ in shape.
        """
        reader = plans_manager.image_reader_writer_class()
        data, properties = read_images(reader, image_files)
        if len(image_files) == 1:
            description = dataset_json if isinstance(dataset_json, dict) else read_dataset_json(dataset_json)
            channels = list(channel_names(description).values())
            if seg_file is None and len(data) != len(channels):  # in prediction
                data = reader.as_channels(data, channels, image_files[0])
            check_channels_of_file(image_files[0], len(data), channels)
        _check_finite(image_files, data)
        seg = None
        if seg_file is not None:
            seg, _ = read_seg(reader, seg_file)
            if data.shape[1:] != seg.shape[1:]:
                raise DataError(
                    f"{', '.join(map(str, image_files))} has {_dimensions(data)} voxels but {seg_file} has "
                    f"{_dimensions(seg)}; image and label must be on the same grid"
                )
            if not changes_labels(type(self)):
                _check_labels(seg, seg_file, dataset_json)
        if self.verbose:
            logger.info("Preprocessing %s", ", ".join(map(str, image_files)))
        return self.run_case_npy(data, seg, properties, plans_manager, configuration_manager, dataset_json)

    def run_case_save(
        self,
        output_filename_truncated: str,
        image_files: Sequence[str],
        seg_file: str,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: dict | str,
    ) -> None:
        """Preprocesses a case with `run_case` and stores it; the path includes the case's name, without ending."""
        # Here, because it imports blosc2, which prediction never needs.
        from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2

        data, seg, properties = self.run_case(image_files, seg_file, plans_manager, configuration_manager, dataset_json)
        data = data.astype(np.float32, copy=False)
        seg = seg.astype(np.int16, copy=False)
        patch_size = tuple(configuration_manager.patch_size)
        blocks, chunks = comp_blosc2_params(data.shape, patch_size, data.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch_size, seg.itemsize)
        sizes = {"chunks": chunks, "blocks": blocks, "chunks_seg": chunks_seg, "blocks_seg": blocks_seg}
        try:
            nnUNetDatasetBlosc2.save_case(data, seg, properties, output_filename_truncated, **sizes)
        except (OSError, RuntimeError) as err:  # blosc2 raises RuntimeError, without the reason
            if isinstance(err, NNUNetError):
                raise
            folder = os.path.dirname(output_filename_truncated)
            space = f"{shutil.disk_usage(folder).free >> 20} MB are left"
            raise NNUNetError(
                f"{folder} cannot be written ({err}); is the disk full? {space}. Earlier results are unchanged"
            ) from err

    def run(
        self, dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str, num_processes: int
    ) -> None:
        """Preprocesses all training cases of a dataset.

        Earlier results of the configuration are replaced only after all cases are done; if one fails, they are kept.
        Another process that preprocesses into the same folder is refused meanwhile.

        Args:
            dataset_name_or_id: `DatasetXXX_Name`, or XXX.
            configuration_name: configuration of the plans, such as `3d_fullres`.
            plans_identifier: name of the plans file without `.json`.
            num_processes: worker processes; 1 or less: use this process.

        Raises:
            UsageError: the dataset, its plans or the configuration do not exist.
            DataError: a case cannot be used; the message names it.
            LockedError: another process preprocesses into the same folder.
        """
        dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
        raw_folder = Path(nnUNet_raw, dataset)
        if not raw_folder.is_dir():
            raise UsageError(f"There is no folder {raw_folder}; it should hold the raw images and dataset.json")
        folder = Path(nnUNet_preprocessed, dataset)
        plans_file = folder / f"{check_name(plans_identifier, 'plans', UsageError)}.json"
        if not plans_file.is_file():
            raise UsageError(f"There are no plans {plans_file}; make them with nnUNetv2_plan_experiment")
        plans_manager = PlansManager(plans_file)
        configuration_manager = plans_manager.get_configuration(configuration_name)
        dataset_json = read_dataset_json(folder / "dataset.json")
        cases = get_filenames_of_train_images_and_targets(raw_folder, dataset_json)

        shared = (plans_manager, configuration_manager, dataset_json)
        identifier = configuration_manager.data_identifier
        with (
            locked_folder(folder, "preprocessing", part=identifier, can_force=False),
            replace_folder_when_complete(folder / identifier) as output_folder,
        ):
            results = map_cases(
                self.run_case_save,
                [(str(output_folder / case), file["images"], file["label"], *shared) for case, file in cases.items()],
                max(1, num_processes),
                names=list(cases),
                description=f"Preprocessing {configuration_name}",
                show_progress=self.show_progress_bar,
                files=[image for case in cases.values() for image in case["images"]],
            )
            deque(results, maxlen=0)  # workers store the cases; the results are empty

    def modify_seg_fn(
        self,
        seg: np.ndarray,
        plans_manager: PlansManager,
        dataset_json: dict,
        configuration_manager: ConfigurationManager,
    ) -> np.ndarray:
        """Hook: returns the labels to store; subclasses may modify them after resampling."""
        return seg

    def _normalize(
        self,
        data: np.ndarray,
        seg: np.ndarray,
        configuration_manager: ConfigurationManager,
        foreground_intensity_properties_per_channel: dict,
    ) -> np.ndarray:
        """Normalises each channel by its scheme in the plans."""
        schemes = configuration_manager.normalization_schemes
        if len(schemes) != len(data):
            raise DataError(f"The case has {len(data)} channels, but the plans are for {len(schemes)}")
        result = np.empty(data.shape, dtype=np.float32)
        for channel, scheme in enumerate(schemes):
            normalizer = find_by_name("normalization scheme", scheme)(
                use_mask_for_norm=configuration_manager.use_mask_for_norm[channel],
                intensityproperties=foreground_intensity_properties_per_channel[str(channel)],
            )
            result[channel] = normalizer.run(data[channel], seg[0])
        return result

    @staticmethod
    def _sample_foreground_locations(
        seg: np.ndarray,
        classes_or_regions: Sequence[int | Sequence[int]],
        seed: int = 1234,
        verbose: bool = False,
        min_num_samples: int = 10000,
        min_percent_coverage: float = 0.01,
    ) -> dict:
        """See `sample_foreground_locations`; `verbose` logs how many voxels were drawn per class."""
        locations = sample_foreground_locations(seg, classes_or_regions, seed, min_num_samples, min_percent_coverage)
        if verbose:
            logger.info("Voxels drawn per class: %s", {label: len(voxels) for label, voxels in locations.items()})
        return locations


def changes_labels(preprocessor_class: type) -> bool:
    """True if the labels of the files need not be those of dataset.json, as `modify_seg_fn` may map them."""
    return getattr(preprocessor_class, "modify_seg_fn", None) is not DefaultPreprocessor.modify_seg_fn


def _check_labels(seg: np.ndarray, seg_file: str, dataset_json: dict | str) -> None:
    if isinstance(dataset_json, (str, os.PathLike)):
        dataset_json = read_dataset_json(dataset_json)
    problems = label_problems(seg, declared_labels(dataset_json), seg_file)
    if problems:
        raise DataError(problems[0])


def _classes_to_locate(label_manager: LabelManager) -> list:
    """Returns the classes that training oversamples; with an ignore label, also the whole annotated area."""
    classes = list(label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels)
    if label_manager.has_ignore_label:
        classes.append([-1, *label_manager.all_labels])
    return classes


def _check_finite(image_files: Sequence[str], data: np.ndarray) -> None:
    channels = data if len(image_files) == len(data) else [data] * len(image_files)
    for file, voxels in zip(image_files, channels, strict=True):
        number = count_nonfinite_voxels(file, voxels)
        if number:
            raise DataError(
                f"{file} has {number} voxels that are NaN or infinite; replace them by a value that makes sense for "
                f"this kind of image (for example that of the background)"
            )


def _dimensions(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape[1:]))

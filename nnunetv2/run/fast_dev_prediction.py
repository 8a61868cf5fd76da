"""Predicts one case with the checkpoint of a fast dev run, in the same way as a later prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2.errors import DataError
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.mirroring import mirrorings
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.training.validation import full_validation
from nnunetv2.training.validation.online_metrics import mean_of_defined

_NUM_COMPARED_CASES = 10  # the smallest of these is used; opening every case of a large dataset takes long


@dataclass(frozen=True)
class StoredCase:
    """A preprocessed case in memory."""

    name: str
    image: torch.Tensor
    """(C, X, Y, Z)"""
    labels: np.ndarray
    """(X, Y, Z); -1 outside the image data"""
    properties: dict[str, Any]

    def middle(self, size: Sequence[int]) -> StoredCase:
        """Crops the centre and returns it as a complete case that was never resampled."""
        starts = [(whole - part) // 2 for whole, part in zip(self.labels.shape, size, strict=True)]
        region = tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))
        geometry = {
            "shape_before_cropping": tuple(size),
            "shape_after_cropping_and_before_resampling": tuple(size),
            "bbox_used_for_cropping": [[0, part] for part in size],
        }
        return StoredCase(
            self.name, self.image[(slice(None), *region)], self.labels[region], self.properties | geometry
        )


@dataclass(frozen=True)
class PredictedCase:
    """Result and score of a prediction."""

    name: str
    shape: tuple[int, ...]
    """predicted voxels, on the preprocessed grid"""
    whole_shape: tuple[int, ...]
    """voxels of the whole case"""
    is_mirrored: bool
    """mirrored predictions were averaged"""
    dice: float
    """mean over the foreground classes; NaN if neither file has foreground"""


def load_predictor(trainer: nnUNetTrainer) -> nnUNetPredictor:
    """Creates a predictor from nothing but the files in the trainer's model folder."""
    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (trainer.fold,), checkpoint.FINAL)
    return predictor


def smallest_case(trainer: nnUNetTrainer) -> StoredCase:
    """Loads the smallest of the first validation cases in the same way as the validation."""
    _, dataset = trainer.get_tr_and_val_datasets()
    names = list(dataset.identifiers)[:_NUM_COMPARED_CASES]
    name = min(names, key=lambda candidate: math.prod(dataset.load_case(candidate)[0].shape))
    setting = trainer.validation_setting(num_processes=1, save_probabilities=False)
    image, properties = full_validation.load_network_input(dataset, name, setting)
    return StoredCase(name, image, np.array(dataset.load_case(name)[1][0]), properties)


def predict_one_case(
    predictor: nnUNetPredictor, case: StoredCase, references: Path, folder: Path, *, most_patches: float, npz: bool
) -> PredictedCase:
    """Predicts a case or its central part, writes the segmentation and scores the file.

    Args:
        references: folder of the reference segmentations.
        folder: output folder; created if missing.
        most_patches: a case that needs more patches than this, including mirrored copies, is cropped to its centre.
        npz: also write the class probabilities.

    Raises:
        DataError: the reference is missing, or the written file does not match it.
    """
    reference = references / f"{case.name}{predictor.dataset_json['file_ending']}"
    if not reference.is_file():
        raise DataError(f"There is no {reference}, which the validation needs; run nnUNetv2_preprocess for the dataset")
    folder.mkdir(parents=True, exist_ok=True)
    whole_shape = case.labels.shape
    if num_patches(predictor, whole_shape) > most_patches:
        case = case.middle(size_of_middle(whole_shape, predictor.configuration_manager.patch_size))
        reference = write_reference(case, predictor, folder)
        predictor.use_mirroring = num_patches(predictor, case.labels.shape) <= most_patches
    logits = predictor.predict_logits_from_preprocessed_data(case.image).numpy()
    managers = (predictor.configuration_manager, predictor.plans_manager)
    output = folder / case.name
    export_prediction_from_logits(logits, case.properties, *managers, predictor.dataset_json, str(output), npz)
    dice = score(predictor, f"{output}{predictor.dataset_json['file_ending']}", str(reference))
    return PredictedCase(case.name, case.labels.shape, whole_shape, predictor.use_mirroring, dice)


def num_patches(predictor: nnUNetPredictor, image_size: Sequence[int]) -> float:
    """Number of patches to predict an image, including mirrored copies and fractions of patches."""
    patch_size = predictor.configuration_manager.patch_size
    missing_axes = len(image_size) - len(patch_size)
    padded = [*image_size[:missing_axes], *map(max, image_size[missing_axes:], patch_size)]
    tiles = predictor._internal_get_sliding_window_slicers(padded)
    tile_size = [part.stop - part.start for part in tiles[0][-len(patch_size) :]]
    copies = mirrorings(predictor.allowed_mirroring_axes if predictor.use_mirroring else None)
    return len(copies) * len(tiles) * math.prod(tile_size) / math.prod(patch_size)


def size_of_middle(image_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Size of the central crop: a patch, plus half along the last axis so that tiles overlap; one slice in 2-D."""
    wanted = [1] * (len(image_size) - len(patch_size)) + [*patch_size[:-1], patch_size[-1] * 3 // 2]
    return tuple(map(min, image_size, wanted))


def write_reference(case: StoredCase, predictor: nnUNetPredictor, folder: Path) -> Path:
    """Writes the labels of a cropped case, whose grid differs from the reference file's; returns the path."""
    path = folder / f"reference_{case.name}{predictor.dataset_json['file_ending']}"
    labels = np.maximum(case.labels, 0).transpose(predictor.plans_manager.transpose_backward)
    predictor.plans_manager.image_reader_writer_class().write_seg(labels, str(path), case.properties)
    return path


def score(predictor: nnUNetPredictor, prediction: str, reference: str) -> float:
    """Mean Dice of the foreground of two files.

    Raises:
        DataError: the shapes differ, or the prediction has values that are not labels.
    """
    labels = predictor.label_manager
    reader = predictor.plans_manager.image_reader_writer_class()
    unknown = set(np.unique(reader.read_seg(prediction)[0]).astype(int).tolist()) - {0, *labels.all_labels}
    if unknown:
        raise DataError(f"The prediction has the values {sorted(unknown)}; the labels are {labels.all_labels}")
    regions = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    metrics = compute_metrics(reference, prediction, reader, regions, labels.ignore_label)["metrics"]
    return mean_of_defined([metrics[region]["Dice"] for region in regions])

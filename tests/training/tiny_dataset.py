"""A preprocessed 2-D dataset of six small images, made without the preprocessing, for tests that train."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.preprocessing.stored_cases import comp_blosc2_params, nnUNetDatasetBlosc2

NAME = "Dataset777_Tiny"
CASES = [f"case_{number}" for number in range(6)]
SIZE = 40  # pixels of each side

DATASET_JSON = {
    "channel_names": {"0": "gray"},
    "labels": {"background": 0, "left": 1, "right": 2},
    "numTraining": len(CASES),
    "file_ending": ".png",
}


def tiny_plans() -> dict[str, Any]:
    """Plans with one configuration, `2d`: patches of 32 x 32, a U-Net of three stages with 4 to 8 features."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32],
        "median_image_size_in_voxels": [40.0, 40.0],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 8],
                "conv_op": "torch.nn.modules.conv.Conv2d",
                "kernel_sizes": [[3, 3]] * 3,
                "strides": [[1, 1], [2, 2], [2, 2]],
                "n_conv_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    for what in ("data", "seg", "probabilities"):
        configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{what}_kwargs"] = {**resampling, "is_seg": what == "seg"}
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [999.0, 1.0, 1.0],
        "original_median_shape_after_transp": [1, SIZE, SIZE],
        "image_reader_writer": "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }


def write_tiny_dataset(preprocessed_root: Path) -> Path:
    """Writes the dataset below the root of preprocessed data; returns its folder."""
    folder = preprocessed_root / NAME
    cases, references = folder / "nnUNetPlans_2d", folder / "gt_segmentations"
    cases.mkdir(parents=True)
    references.mkdir()
    for name, content in {
        "nnUNetPlans.json": tiny_plans(),
        "dataset.json": DATASET_JSON,
        "dataset_fingerprint.json": {},
    }.items():
        (folder / name).write_text(json.dumps(content))
    generator = np.random.default_rng(5)
    for case in CASES:
        segmentation = np.zeros((1, 1, SIZE, SIZE), dtype=np.int16)
        row = generator.integers(4, 20)
        segmentation[..., row : row + 12, 4:16] = 1
        segmentation[..., row : row + 12, 24:36] = 2
        image = segmentation + generator.normal(0, 0.2, segmentation.shape)
        properties = {
            "spacing": [999.0, 1.0, 1.0],
            "shape_before_cropping": (1, SIZE, SIZE),
            "shape_after_cropping_and_before_resampling": (1, SIZE, SIZE),
            "bbox_used_for_cropping": [[0, 1], [0, SIZE], [0, SIZE]],
            "class_locations": {label: np.argwhere(segmentation == label) for label in (1, 2)},
        }
        blocks, chunks = comp_blosc2_params(segmentation.shape, (32, 32), 4)
        nnUNetDatasetBlosc2.save_case(
            image.astype(np.float32), segmentation, properties, str(cases / case), chunks, blocks, chunks, blocks
        )
        NaturalImage2DIO().write_seg(segmentation[0].astype(np.uint8), str(references / f"{case}.png"), properties)
    return folder


@dataclass(frozen=True)
class Schedule:
    """Length of a training that only has to run."""

    epochs: int = 2
    iterations: int = 2
    validation_iterations: int = 1


def make_trainer(trainer_class: type, schedule: Schedule | None = None, *, fold: int = 0, **kwargs: Any) -> Any:
    """Trainer of one fold of the tiny dataset on the CPU; further keywords go to its constructor."""
    trainer = trainer_class(tiny_plans(), "2d", fold, DATASET_JSON, torch.device("cpu"), **kwargs)
    if schedule is not None:
        trainer.num_epochs = schedule.epochs
        trainer.num_iterations_per_epoch = schedule.iterations
        trainer.num_val_iterations_per_epoch = schedule.validation_iterations
    return trainer

"""Folders as trainings leave them, small and made by hand, for tests that only read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2.training.protocol.hashes import cases_description

DATASET = "Dataset777_Tiny"
DATASET_JSON = {
    "channel_names": {"0": "gray"},
    "labels": {"background": 0, "left": 1, "right": 2},
    "file_ending": ".png",
}
FOLDS = {"0": ("a", "b"), "1": ("c", "<d>")}
STEPS = ["SpatialTransform(rotation=(0, 1), scaling=2)", "MirrorTransform(allowed_axes=(0, 1))"]
FINGERPRINT = {"spacings": [[1.0, 0.5, 0.5]]}
NAME = "nnUNetTrainer__nnUNetPlans__2d"

CONFIGURATION = {
    "batch_size": 2,
    "patch_size": [32, 16],
    "spacing": [0.5, 0.5],
    "preprocessor_name": "DefaultPreprocessor",
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "architecture": {"network_class_name": "some.PlainNet", "arch_kwargs": {}, "_kw_requires_import": []},
    **{f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")},
    **{f"resampling_fn_{what}_kwargs": {"order": 1} for what in ("data", "seg", "probabilities")},
}
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "NaturalImage2DIO",
    "transpose_forward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.25}},
    "configurations": {"2d": CONFIGURATION},
}
RUN_LINE = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 10,
    "batch_size": 2,
    "patch_size": [32, 16],
    "precision": "fp32",
    "seed": None,
    "num_parameters": 100,
    "num_trained_parameters": 90,
    "world_size": 2,
    "device": "cuda",
    "device_name": "GPU",
    "command": "nnUNetv2_train 777 2d 0",
    "augmentation": {"transforms": STEPS},
    "oversample_foreground_percent": 0.33,
    "probabilistic_oversampling": False,
    "mirror_axes": [0, 1],
    "tile_step_size": 0.5,
    "pretrained_weights": None,
}
EPOCHS = [
    {"epoch": epoch, "mean_fg_dice": dice, "val_loss": -dice, "seconds": 45.0, "train_seconds": 40.0, "world_size": 2}
    for epoch, dice in enumerate((0.5, 0.75))
]
# What upstream's trainer leaves; by hand, the keys that matter and one that is no plain data.
UPSTREAM_DEBUG = {
    "configuration_manager": str(CONFIGURATION),
    "dataloader_train.transform": "None",
    "dataset_json": str(DATASET_JSON),
    "device": "cuda:0",
    "gpu_name": "NVIDIA A100",
    "grad_scaler": "<torch.amp.grad_scaler.GradScaler object at 0x7f02>",
    "inference_allowed_mirroring_axes": "(0, 1)",
    "is_ddp": "False",
    "label_manager": "<nnunetv2.utilities.label_handling.label_handling.LabelManager object at 0x7f0cf9192850>",
    "network": "PlainNet",
    "num_epochs": "2",
    "num_iterations_per_epoch": "10",
    "oversample_foreground_percent": "0.33",
    "plans_manager": str(PLANS),
    "probabilistic_oversampling": "False",
}
UPSTREAM_LOG = """
2026-11-21 18:51:10.452111: Epoch 0 
2026-11-21 18:51:10.452227: Current learning rate: 0.01 
2026-11-21 18:51:20.865661: train_loss 0.1222 
2026-11-21 18:51:20.865837: val_loss -0.0645 
2026-11-21 18:51:20.865892: Pseudo dice [np.float32(0.5), np.float32(0.25), nan] 
2026-11-21 18:51:20.865953: Epoch time: 36.0 s 
2026-11-21 18:51:22.787665: Epoch 1 
2026-11-21 18:51:29.633642: train_loss -0.0567 
2026-11-21 18:51:29.633825: val_loss -0.1073 
2026-11-21 18:51:29.633878: Pseudo dice [0.75, 0.25] 
2026-11-21 18:51:29.633939: Epoch time: 72.0 s 
2026-11-21 18:51:31.027099: Training done. 
2026-11-21 18:52:06.189476: Mean Validation Dice:  0.15 
"""  # noqa: W291 - upstream's lines end with a space


@dataclass
class Model:
    """What is in the folder of a model; tests change what they are about."""

    folds: Mapping[str, Sequence[str]] = field(default_factory=lambda: FOLDS)
    """validation cases by fold"""
    training: Sequence[str] = ("x", "y")
    """training cases of every fold"""
    run_line: dict[str, Any] = field(default_factory=lambda: deepcopy(RUN_LINE))
    validation_line: dict[str, Any] = field(default_factory=lambda: {"epochs_trained": 2, "checkpoint": "final"})
    plans: dict[str, Any] = field(default_factory=lambda: deepcopy(PLANS))
    dataset_json: dict[str, Any] = field(default_factory=lambda: deepcopy(DATASET_JSON))
    fingerprint: dict[str, Any] = field(default_factory=lambda: deepcopy(FINGERPRINT))
    debug: dict[str, str] | None = None
    epochs: Sequence[Mapping[str, Any]] = tuple(EPOCHS)
    is_upstreams: bool = False

    def write(self, folder: Path) -> Path:
        """Writes the folder and returns it."""
        folder.mkdir(parents=True)
        for name, content in {
            "plans.json": self.plans,
            "dataset.json": self.dataset_json,
            "dataset_fingerprint.json": self.fingerprint,
        }.items():
            (folder / name).write_text(json.dumps(content))
        for fold, cases in self.folds.items():
            self._write_fold(folder / f"fold_{fold}", cases)
        return folder

    def _write_fold(self, folder: Path, cases: Sequence[str]) -> None:
        write_predictions(folder / "validation", cases)
        if self.is_upstreams:
            (folder / "debug.json").write_text(json.dumps(UPSTREAM_DEBUG if self.debug is None else self.debug))
            (folder / "training_log_2026_11_21_18_51_10.txt").write_text(UPSTREAM_LOG)
            return
        if self.debug is not None:
            (folder / "debug.json").write_text(json.dumps(self.debug))
        split = {"training": cases_description(self.training), "validation": cases_description(cases)}
        lines = [{"type": "run", "first_epoch": 0, "split": split, **self.run_line}]
        lines += [{"type": "epoch", **epoch} for epoch in self.epochs]
        lines += [{"type": "validation", **self.validation_line}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_predictions(folder: Path, cases: Sequence[str], content: bytes = b"p") -> Path:
    """A folder of files that stand for segmentations."""
    folder.mkdir(parents=True)
    for case in cases:
        (folder / f"{case}.png").write_bytes(content)
    return folder


def write_dataset(folders: Mapping[str, Path], cases: Sequence[str] = ("a", "b", "c", "<d>")) -> Path:
    """A preprocessed dataset as far as a comparison needs it: dataset.json and references."""
    folder = folders["nnUNet_preprocessed"] / DATASET
    write_predictions(folder / "gt_segmentations", cases, b"r")
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder

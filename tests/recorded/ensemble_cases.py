"""Predictions of several models, and the ensembles of them that `make_ensembles.py` records."""

import json
import pickle
from pathlib import Path

import numpy as np

SHAPE = (3, 6, 5)  # z, y, x
CASES = ("case_1", "case_2")
PROPERTIES = {
    "spacing": [3.0, 1.0, 0.5],
    "sitk_stuff": {
        "spacing": (0.5, 1.0, 3.0),
        "origin": (1.0, -2.0, 3.0),
        "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    },
}
PLANS = {
    "dataset_name": "Dataset991_Ensemble",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "label_manager": "LabelManager",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {},
}
LABELS = {
    "labels": {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"},
    "regions": {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
    },
}
NUM_OUTPUTS = {"labels": 3, "regions": 2}


def probabilities(kind: str, model: int, case: int, dtype: type = np.float32) -> np.ndarray:
    """(K, Z, Y, X); those of labels sum to one."""
    scores = np.random.default_rng((model, case)).random((NUM_OUTPUTS[kind], *SHAPE))
    return (scores / scores.sum(0) if kind == "labels" else scores).astype(dtype)


def write_predictions(folder: Path, kind: str, model: int, cases: tuple[str, ...] = CASES) -> Path:
    """Writes what a prediction with probabilities leaves in a folder; the third model's are of half precision."""
    folder.mkdir(parents=True)
    for case in cases:
        dtype = np.float16 if model == 2 else np.float32
        np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities(kind, model, CASES.index(case), dtype))
        (folder / f"{case}.pkl").write_bytes(pickle.dumps(PROPERTIES))
    write_descriptions(folder, kind)
    return folder


def write_descriptions(folder: Path, kind: str) -> None:
    """Writes dataset.json and plans.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(LABELS[kind]))
    (folder / "plans.json").write_text(json.dumps(PLANS))


def write_crossvalidation(folder: Path, kind: str, model: int, folds: dict[int, tuple[str, ...]]) -> Path:
    """Writes the validations of a model, of the given cases in each fold."""
    for fold, cases in folds.items():
        write_predictions(folder / f"fold_{fold}" / "validation", kind, model, cases)
    write_descriptions(folder, kind)
    return folder

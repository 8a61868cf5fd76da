"""Logits of a case of which `make_single_files.py` records one file per class; needs neither nnU-Net."""

import json
from pathlib import Path

import numpy as np

MODEL = Path(__file__).parent / "inference" / "models" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
DATASET_JSON = json.loads((MODEL / "dataset.json").read_text()) | {
    "labels": {"background": 0, "left kidney": 1, "spleen": 2, "ignore": 3}
}
# In the file (5, 6, 7), in the order of the plans (7, 5, 6); the crop leaves out a layer on two axes.
PROPERTIES = {
    "spacing": [3.0, 0.9, 1.2],
    "sitk_stuff": {
        "spacing": (1.2, 0.9, 3.0),
        "origin": (1.0, -2.0, 3.0),
        "direction": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    },
    "shape_before_cropping": (7, 5, 6),
    "bbox_used_for_cropping": [[1, 7], [0, 5], [0, 5]],
    "shape_after_cropping_and_before_resampling": (6, 5, 5),
}


def logits() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(3, 5, 7, 4)).astype(np.float32)

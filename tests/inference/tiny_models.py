"""Models, images and expected outputs of `recorded/make_inference.py`, and predictors for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "inference"
IMAGES = RECORDED / "images"
PREVIOUS_STAGE = RECORDED / "previous_stage"
CPU = torch.device("cpu")


def model_folder(configuration: str) -> Path:
    return RECORDED / "models" / f"nnUNetTrainer__nnUNetPlans__{configuration}"


def expected() -> dict[str, np.ndarray]:
    with np.load(RECORDED / "expected.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def tiny_predictor(configuration: str = "3d_fullres", folds: object = (0,), **kwargs: object) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False, **kwargs)
    predictor.initialize_from_trained_model_folder(model_folder(configuration), folds)
    return predictor


def read_image(predictor: nnUNetPredictor) -> tuple[np.ndarray, dict]:
    return predictor.plans_manager.image_reader_writer_class().read_images([str(IMAGES / "case_0000.nii.gz")])

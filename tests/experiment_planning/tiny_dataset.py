"""A raw dataset of four tiny cases with two channels, made the same everywhere; no import of nnU-Net."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

NAME = "Dataset017_Tiny"
SPACINGS = ((3.0, 0.8, 0.9), (2.5, 0.8, 0.8), (3.0, 1.0, 0.9), (3.5, 0.8, 0.9))  # mm, z y x
SHAPES = ((8, 14, 12), (9, 13, 12), (10, 12, 14), (8, 12, 12))
CASE_WITHOUT_FOREGROUND = 3


def write_image(path: Path, array: np.ndarray, spacing_zyx: tuple[float, float, float]) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(reversed(spacing_zyx)))
    image.SetOrigin((-7.5, 3.0, 12.0))
    sitk.WriteImage(image, str(path), useCompression=True)


def write_tiny_dataset(raw_root: Path) -> Path:
    """Writes the dataset below `raw_root` and returns its folder."""
    folder = Path(raw_root, NAME)
    for subfolder in ("imagesTr", "labelsTr"):
        (folder / subfolder).mkdir(parents=True)
    for case, (shape, spacing) in enumerate(zip(SHAPES, SPACINGS, strict=True)):
        random_state = np.random.RandomState(case)
        inside = np.zeros(shape, dtype=bool)
        inside[1:-1, 2:-2, 1:-2] = True
        label = np.zeros(shape, dtype=np.uint8)
        if case != CASE_WITHOUT_FOREGROUND:
            label[2:5, 4:8, 3:8] = 1
            label[3:4, 5:7, 4:6] = 2
        smooth = np.where(inside, 200 + 40 * label + random_state.normal(0, 15, shape), 0).astype(np.float32)
        coarse = np.where(inside, random_state.randint(-50, 300, shape), 0).astype(np.int16)
        write_image(folder / "imagesTr" / f"case_{case}_0000.nii.gz", smooth, spacing)
        write_image(folder / "imagesTr" / f"case_{case}_0001.nii.gz", coarse, spacing)
        write_image(folder / "labelsTr" / f"case_{case}.nii.gz", label, spacing)
    description = {
        "channel_names": {"0": "T1", "1": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": len(SHAPES),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder

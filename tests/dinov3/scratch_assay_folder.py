"""Ten real microscope images, a wound that closes over time, as a folder in ADE20K's layout."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

NUM_CLASSES = 3  # background, cytoplasm, nucleus
NUM_FRAMES = 10
VALIDATION_FRAMES = (0, 1)  # a block in time, since neighbours look alike
NUCLEI_LIMITS = (400.0, 2400.0)  # of H3342, a stain of nuclei
OBLIQUE_LIMITS = (7000.0, 9400.0)  # of the transmitted light


def make_scratch_assay_folder(shared_folder: Path, root: Path) -> Path:
    """Writes the frames of the scratch-assay dataset as PNG files and returns `root`.

    Red is the stain of the nuclei, green and blue are the transmitted light; one pair of limits for all frames.
    """
    source = shared_folder / "data" / "Dataset071_ScratchAssay"
    for frame in range(NUM_FRAMES):
        split = "validation" if frame in VALIDATION_FRAMES else "training"
        name = f"scratch_{frame:03d}"
        nuclei = _eight_bits(_read(source / "imagesTr" / f"{name}_0000.nii.gz"), NUCLEI_LIMITS)
        oblique = _eight_bits(_read(source / "imagesTr" / f"{name}_0001.nii.gz"), OBLIQUE_LIMITS)
        _save(np.stack([nuclei, oblique, oblique], axis=-1), root / "images" / split / f"{name}.png")
        _save(
            _read(source / "labelsTr" / f"{name}.nii.gz").astype(np.uint8), root / "annotations" / split / f"{name}.png"
        )
    return root


def _read(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)[..., 0].T  # (x, y, 1) -> (row, column)


def _eight_bits(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)

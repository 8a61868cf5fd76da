"""Small folders of images and label maps in ADE20K's layout, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_pixels(path: Path, pixels: np.ndarray, **options) -> Path:
    """Writes an array as an image file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def add_sample(
    root: Path,
    name: str,
    *,
    split: str = "training",
    suffix: str = ".png",
    size: tuple[int, int] = (6, 8),
    label: int = 0,
) -> None:
    """Writes an image of one grey and a label map of one label."""
    save_pixels(root / "images" / split / f"{name}{suffix}", np.full((*size, 3), 100, dtype=np.uint8))
    save_pixels(root / "annotations" / split / f"{name}.png", np.full(size, label, dtype=np.uint8))

"""A few small images of coloured squares in ADE20K's layout, which a tiny model can learn in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NUM_CLASSES = 3  # background, red squares, blue squares
_COLOURS = np.array([[40, 40, 40], [200, 60, 60], [60, 60, 220]], dtype=np.uint8)


def make_tiny_ade20k_folder(root: Path, *, num_training: int = 6, num_validation: int = 3) -> Path:
    """Writes images of 72 x 80 pixels with their label maps and returns `root`."""
    rng = np.random.default_rng(0)
    for split, number in (("training", num_training), ("validation", num_validation)):
        for index in range(number):
            label = np.zeros((72, 80), dtype=np.uint8)
            for value in (1, 2):
                top, left = rng.integers(0, 48, size=2)
                label[top : top + 24, left : left + 24] = value
            image = _COLOURS[label] + rng.integers(0, 20, size=(72, 80, 3), dtype=np.uint8)
            for kind, pixels in (("images", image), ("annotations", label)):
                path = root / kind / split / f"case_{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root

"""Pictures with reference and predicted label map side by side on their image."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from dinov3.eval.segmentation.data.labels import IGNORE_INDEX
from dinov3.utils.atomic_files import replace_when_complete

# Okabe & Ito 2008, "Color Universal Design": distinguishable with every form of colour blindness.
FIRST_COLOURS = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
GREY = 128  # of ignored pixels
STRIPE = 4  # pixels, width of the stripes on them
OPACITY = 0.5  # of class colours; their contours are opaque
GAP = 8  # pixels between the parts of a picture
LEGEND_ROW, LEGEND_COLUMN, SWATCH = 16, 160, 12  # pixels
LONGEST_STEM = 100  # bytes; file systems allow 255 for the full name
LONGEST_CLASS_NAME = 18  # characters that fit into a column of the legend


def save_overlay(
    folder: str | os.PathLike,
    name: str,
    image: Tensor,
    reference: Tensor,
    prediction: Tensor,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes the picture of `draw_overlay` as a PNG file; returns its path, `folder` plus a safe form of `name`."""
    picture = draw_overlay(image, reference, prediction, num_classes, class_names)
    path = Path(folder) / f"{safe_stem(name)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as temporary:
        picture.save(temporary)
    return path


def draw_overlay(
    image: Tensor,
    reference: Tensor,
    prediction: Tensor,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> Image.Image:
    """Draws the reference on the left, the prediction on the right, and a legend of their classes below.

    Args:
        image: (3, H, W) uint8.
        reference: (H, W) classes, or 255 for ignored pixels, which are drawn as grey stripes.
        prediction: (H, W) classes.
        num_classes: K; determines the colours.
        class_names: K names for the legend; None: only numbers.
    """
    pixels = image.permute(1, 2, 0).cpu().numpy()
    maps = [reference.cpu().numpy(), prediction.cpu().numpy()]
    left, right = (_blend(pixels, label_map, num_classes) for label_map in maps)
    gap = np.full((len(pixels), GAP, 3), 255, dtype=np.uint8)
    panels = Image.fromarray(np.concatenate([left, gap, right], axis=1))
    return _with_legend(panels, np.unique(np.stack(maps)), num_classes, class_names)


@functools.cache
def palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Returns one colour (red, green, blue) per class, deterministically; a larger palette extends a smaller one.

    The first eight are distinguishable for colour-blind readers. Each further colour is the one of a regular grid that
    is farthest from all previous ones and from the grey of ignored pixels, by Euclidean distance in CIELAB.
    """
    from skimage.color import rgb2lab  # slow to import, and only needed for pictures

    steps = np.linspace(0, 255, 11).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    taken = np.array([(GREY, GREY, GREY), *FIRST_COLOURS], dtype=np.uint8)
    lab, chosen = rgb2lab(candidates), list(FIRST_COLOURS[:num_classes])
    distance = np.linalg.norm(lab[:, None] - rgb2lab(taken), axis=-1).min(axis=1)
    while len(chosen) < num_classes:
        farthest = int(distance.argmax())
        chosen.append(tuple(int(channel) for channel in candidates[farthest]))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[farthest], axis=-1))
    return tuple(chosen)


def safe_stem(name: str) -> str:
    """Converts a name to a file name, without suffix, that is valid on every file system.

    Letters, digits, dots, hyphens and underscores are kept. A modified or shortened name gets a digest of the original
    as suffix, so that names cannot collide.
    """
    cleaned = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    shortened = cleaned.encode()[:LONGEST_STEM].decode(errors="ignore")
    if shortened == name and name:
        return name
    return f"{shortened}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def contours(label_map: np.ndarray) -> np.ndarray:
    """Marks the pixels (H, W) whose right or lower neighbour has another label."""
    edges = np.zeros(label_map.shape, dtype=bool)
    edges[:, :-1] |= label_map[:, :-1] != label_map[:, 1:]
    edges[:-1] |= label_map[:-1] != label_map[1:]
    return edges


def _blend(image: np.ndarray, label_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Blends the image with the colours of its classes, (H, W, 3) uint8."""
    ignored = label_map == IGNORE_INDEX
    colours = np.array(palette(num_classes), dtype=np.float32)[np.where(ignored, 0, label_map)]
    colours[ignored] = GREY
    opacity = np.where(contours(label_map), 1.0, OPACITY)
    rows, columns = np.indices(label_map.shape, sparse=True)
    stripes = (rows + columns) // STRIPE % 2 == 0
    opacity = np.where(ignored, stripes.astype(float), opacity)[..., None]
    return (image * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def _with_legend(
    panels: Image.Image, labels: np.ndarray, num_classes: int, class_names: Sequence[str] | None
) -> Image.Image:
    """Adds the titles of the panels and rows of coloured squares with the number and name of each class."""
    columns = max(1, panels.width // LEGEND_COLUMN)
    num_rows = 1 + -(-len(labels) // columns)
    picture = Image.new("RGB", (panels.width, panels.height + GAP + LEGEND_ROW * num_rows), (255, 255, 255))
    picture.paste(panels)
    draw = ImageDraw.Draw(picture)
    for left, title in ((0, "reference"), ((panels.width + GAP) // 2, "prediction")):
        draw.text((left, panels.height + GAP // 2), title, fill=(0, 0, 0))
    for index, label in enumerate(labels.tolist()):
        left = LEGEND_COLUMN * (index % columns)
        top = panels.height + GAP + LEGEND_ROW * (1 + index // columns)
        colour = (GREY, GREY, GREY) if label == IGNORE_INDEX else palette(num_classes)[label]
        draw.rectangle((left, top, left + SWATCH - 1, top + SWATCH - 1), fill=colour)
        draw.text((left + SWATCH + 4, top), _caption(label, class_names), fill=(0, 0, 0))
    return picture


def _caption(label: int, class_names: Sequence[str] | None) -> str:
    if label == IGNORE_INDEX:
        return "ignored"
    name = f" {class_names[label]}"[: LONGEST_CLASS_NAME + 1] if class_names else ""
    return f"{label}{name}".encode("latin-1", errors="replace").decode("latin-1")  # Pillow's built-in font

"""One picture per case: image, reference and prediction, stacked vertically."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from demo.scratch_assay import LABELS
from dinov3.utils.atomic_files import replace_when_complete

COLOURS = {LABELS["cytoplasm"]: (0.95, 0.60, 0.10), LABELS["nucleus"]: (0.15, 0.65, 0.95)}  # safe for the colour-blind
OPACITY = 0.45


def composite(frame: np.ndarray) -> np.ndarray:
    """RGB image (H, W, 3) in [0, 1] of a frame (2, H, W): the light in grey, the stain in blue."""
    stain, light = (_stretched(channel) for channel in frame)
    return np.clip(np.stack([light, light, light + 0.6 * stain], axis=-1), 0, 1)


def painted(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`image` (H, W, 3) with the label map (H, W) laid over it."""
    result = image.copy()
    for label, colour in COLOURS.items():
        inside = labels == label
        result[inside] = (1 - OPACITY) * result[inside] + OPACITY * np.asarray(colour)
    return result


def write_overlay(frame: np.ndarray, reference: np.ndarray, prediction: np.ndarray, title: str, path: Path) -> None:
    """Writes a PNG with three rows: image, reference, prediction. `frame` is (2, H, W), the label maps are (H, W)."""
    image = composite(frame)
    rows = {"image": image, "reference": painted(image, reference), "prediction": painted(image, prediction)}
    height, width = reference.shape
    figure = Figure(figsize=(9, 3 * 9 * height / width + 1.2), layout="constrained")
    figure.suptitle(title)
    for axes, (name, picture) in zip(figure.subplots(3, 1), rows.items(), strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_axis_off()
    names = {label: name for name, label in LABELS.items()}
    patches = [Patch(color=colour, label=names[label]) for label, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="upper right", ncols=len(patches), frameon=False)
    with replace_when_complete(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _stretched(channel: np.ndarray) -> np.ndarray:
    low, high = np.percentile(channel, (0.5, 99.5))
    return np.clip((channel - low) / max(high - low, 1e-8), 0, 1)

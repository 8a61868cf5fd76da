"""Choices for the input of a backbone: channel rules, slices of volumes, and constants for intensities in [0, 1].

Kept apart from the network so that settings load without torch.

Source: ImageNet's as in torchvision; VisionFM's in `get_stats` of ABILab-CUHK/VisionFM, rounded to four digits.
"""

from __future__ import annotations

from typing import NamedTuple

CHANNEL_ADAPTATIONS = ("repeat", "conv1x1", "inflate")
SLICE_INPUTS = ("single", "neighbours")
FUSIONS = ("none", "conv", "attention")

RGB = tuple[float, float, float]


class Constants(NamedTuple):
    """Mean and standard deviation of the red, green and blue channel."""

    mean: RGB
    std: RGB


INPUT_CONSTANTS: dict[str, Constants] = {
    "imagenet": Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "visionfm_fundus": Constants((0.4237, 0.2609, 0.1284), (0.2948, 0.2017, 0.1367)),
    "visionfm_oct": Constants((0.2109, 0.2109, 0.2109), (0.1760, 0.1760, 0.1760)),
    "visionfm_ffa": Constants((0.2020, 0.2021, 0.2020), (0.1741, 0.1740, 0.1740)),
    "visionfm_external": Constants((0.4936, 0.3632, 0.2596), (0.3200, 0.2711, 0.2199)),
    "visionfm_slitlamp": Constants((0.5557, 0.4029, 0.3886), (0.2652, 0.2331, 0.2390)),
    "visionfm_ubm": Constants((0.0961, 0.0961, 0.0961), (0.2098, 0.2098, 0.2098)),
    "visionfm_us": Constants((0.0599, 0.0598, 0.0567), (0.1543, 0.1550, 0.1446)),
    "visionfm_mri": Constants((0.1737, 0.1737, 0.1737), (0.1620, 0.1620, 0.1620)),
}

INPUT_NORMS = ("dataset", *INPUT_CONSTANTS)

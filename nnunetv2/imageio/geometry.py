"""Compare the voxel grids of two images, based on the properties that the readers return."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nnunetv2.imageio.channel_grid import ALLOW_MISMATCH, DIRECTION_TOLERANCE, ORIGIN_TOLERANCE


def mismatch_is_allowed() -> bool:
    """Whether the environment allows geometry mismatches (`nnUNet_allow_geometry_mismatch=1`)."""
    return os.environ.get(ALLOW_MISMATCH, "0") not in ("", "0")


def spacings_agree(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether the voxel spacings (mm per axis) are equal up to rounding in the file headers."""
    a, b = np.asarray(first["spacing"], dtype=float), np.asarray(second["spacing"], dtype=float)
    return np.array_equal(a, b) or (a.shape == b.shape and bool(np.allclose(a, b)))


def placement_differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Describe differences in origin and direction, with both values; empty if there are none or nothing is known.

    Args:
        first, second: property dictionaries of two images from the same reader. Only `sitk_stuff` and
            `nibabel_stuff` define the placement of an image; other formats have none.
    """
    placements = _placement(first), _placement(second)
    if None in placements:
        return []
    (origin_a, direction_a), (origin_b, direction_b) = placements
    differences = []
    if origin_a.shape != origin_b.shape or np.abs(origin_a - origin_b).max() > ORIGIN_TOLERANCE:
        differences.append(f"origin {_listed(origin_a)} mm against {_listed(origin_b)} mm")
    if direction_a.shape != direction_b.shape or np.abs(direction_a - direction_b).max() > DIRECTION_TOLERANCE:
        differences.append(f"direction {_listed(direction_a)} against {_listed(direction_b)}")
    return differences


def _placement(properties: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Origin in mm, and the flattened direction cosines; None if unknown."""
    if "sitk_stuff" in properties:
        stuff = properties["sitk_stuff"]
        return np.asarray(stuff["origin"], dtype=float), np.asarray(stuff["direction"], dtype=float).ravel()
    if "nibabel_stuff" in properties:
        affine = np.asarray(properties["nibabel_stuff"]["original_affine"], dtype=float)
        axes = affine[:3, :3]
        return affine[:3, 3], (axes / np.linalg.norm(axes, axis=0)).ravel()
    return None


def _listed(numbers: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"

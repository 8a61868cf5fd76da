"""Size of the patch to crop so that rotation and scaling still fill the final patch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Angle = float | Sequence[float]  # radians, or a range of them
_RIGHT_ANGLE = math.pi / 2


def get_patch_size(
    final_patch_size: Sequence[int], rot_x: Angle, rot_y: Angle, rot_z: Angle, scale_range: Sequence[float]
) -> np.ndarray:
    """Computes the shape of the patch to crop before rotation and scaling.

    The corner of the final patch is rotated by the largest angle about one axis at a time (combined rotations are not
    considered), and the largest extents are divided by the smallest scale.

    Args:
        final_patch_size: 2 or 3 axes, in voxels.
        rot_x: radians or range of radians about the first axis; the only one used in 2-D. Clipped at 90 degrees,
            because larger angles need no larger patch.
        rot_y: about the second axis.
        rot_z: about the third axis.
        scale_range: scaling factors, below 1 the image shrinks.

    Returns:
        Integer array with one entry per axis, rounded down.
    """
    corner = np.array(final_patch_size, dtype=float)
    # (from, to) of each rotation; the direction matters because only one corner is tracked
    turns = [((1, 2), rot_x), ((2, 0), rot_y), ((0, 1), rot_z)] if len(corner) == 3 else [((0, 1), rot_x)]
    extent = corner.copy()
    for (source, destination), angle in turns:
        largest = min(_RIGHT_ANGLE, float(np.max(np.abs(angle))))
        cosine, sine = np.cos(largest), np.sin(largest)
        turned = (
            cosine * corner[source] + sine * corner[destination],
            cosine * corner[destination] - sine * corner[source],
        )
        extent[[source, destination]] = np.maximum(extent[[source, destination]], np.abs(turned))
    return (extent / min(scale_range)).astype(int)

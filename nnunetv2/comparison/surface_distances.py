"""Distances between the surfaces of two masks, by the definitions of MONAI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SURFACE_METRICS = ("NSD", "HD95", "ASSD")
_PERCENTILE = 95


def surface_scores(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float
) -> dict[str, float]:
    """Compares the surfaces of two masks of one image.

    The surface of a mask is made of its edge voxels: those with a face (in 2-D: a side) on the background or on the end
    of the image, and each is a point at its centre. Every edge voxel of one mask has a distance: the Euclidean one, in
    mm, to the nearest edge voxel of the other mask. Distances are rounded to single precision, so that one that equals
    the tolerance is within it.

    - HD95: the 95th percentile of the distances of each mask, interpolated linearly; the larger of the two.
    - ASSD: the mean of the distances of both masks together, so each edge voxel counts the same.
    - NSD: the share of all edge voxels of both masks whose distance is at most the tolerance. Edge voxels are counted,
      not the area of the surface around them.

    The numbers are those of MONAI's `compute_hausdorff_distance`, `compute_average_surface_distance` (symmetric) and
    `compute_surface_dice` (no subvoxels), whose parts are used here once for all three. Cropping both masks to a box
    that holds both changes nothing.

    Args:
        prediction, reference: boolean, of one shape with two or three axes.
        spacing: mm between voxels along each axis.
        tolerance: of NSD, in mm.

    Returns:
        A number for each of `SURFACE_METRICS`; all are NaN if one of the masks is empty.

    Source: Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", 2015 (HD95, ASSD); Nikolov et al.,
    "Clinically applicable segmentation of head and neck anatomy for radiotherapy", 2021 (NSD).
    """
    if not (prediction.any() and reference.any()):
        return dict.fromkeys(SURFACE_METRICS, float("nan"))
    there, back = _distances_between_edges(prediction, reference, spacing)
    both = np.concatenate([there, back])
    return {
        "NSD": float(np.mean(both <= np.float32(tolerance))),
        "HD95": float(max(np.percentile(one_way, _PERCENTILE) for one_way in (there, back))),
        "ASSD": float(np.mean(both, dtype=np.float64)),
    }


def _distances_between_edges(
    first: np.ndarray, second: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance of each edge voxel of the first mask to the second, and of the second to the first."""
    from monai.metrics import get_mask_edges, get_surface_distance

    edges = get_mask_edges(first, second, crop=False)  # MONAI's own cropping takes longer than all the rest
    return (
        get_surface_distance(edges[0], edges[1], spacing=spacing),
        get_surface_distance(edges[1], edges[0], spacing=spacing),
    )

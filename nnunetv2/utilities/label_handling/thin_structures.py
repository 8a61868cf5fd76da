"""Calibre of labelled structures, and how well logits of a coarse grid can represent them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nnunetv2.utilities.label_handling.label_declaration import Entry, members, only_background

Members = Mapping[str, Sequence[int]]
"""labels of each structure, by its name"""

MARGIN = 1.5
"""strides that a structure should be wide"""

_HIGH_CEILING = 0.95  # Dice from which on a ceiling is no obstacle
_NUM_CASES = 4
_LARGEST = 768  # pixels of a side; of larger slices, a part is measured
_FINEST_STRIDE = 1.0  # pixels; logits finer than the labels gain nothing


def structures_of(labels: Mapping[str, Entry]) -> Members:
    """Labels of each foreground class or region, by its name.

    Args:
        labels: the entry of that name in dataset.json.
    """
    return {name: members(entry) for name, entry in labels.items() if name != "ignore" and not only_background(entry)}


def evenly_chosen(cases: Sequence[str]) -> Sequence[str]:
    """The few of all cases that are measured."""
    return cases[:: max(1, len(cases) // _NUM_CASES)][:_NUM_CASES]


def labelled_slice(labels: np.ndarray, ignored: int | None) -> np.ndarray:
    """The part that is measured: of the slice with the most foreground, the surroundings of the foreground.

    Args:
        labels: (Z, H, W).
        ignored: ignore label; its pixels become background, as do those outside the case.

    Returns:
        (h, w), each at most 768.
    """
    labels = np.where(labels == ignored, 0, labels).clip(0) if ignored is not None else labels.clip(0)
    chosen = labels[int(np.argmax((labels > 0).sum(axis=(1, 2))))]
    foreground = np.argwhere(chosen > 0)
    centre = foreground.mean(axis=0) if len(foreground) else np.array(chosen.shape) / 2
    first = [int(np.clip(c - _LARGEST / 2, 0, max(0, s - _LARGEST))) for c, s in zip(centre, chosen.shape, strict=True)]
    return chosen[first[0] : first[0] + _LARGEST, first[1] : first[1] + _LARGEST]


class ThinStructure(NamedTuple):
    """A structure that cells of a grid cannot represent well."""

    name: str
    calibre: float
    """median, in pixels"""
    ceiling: float
    """see `ceilings`"""


def thinnest_structure(slices: Sequence[np.ndarray], structures: Members, stride: float) -> ThinStructure | None:
    """The thinnest structure below `MARGIN` strides; None if there is none, or if the grid costs it hardly any Dice.

    Args:
        slices: label maps (h, w).
        structures: their labels.
        stride: side of a cell, in pixels.
    """
    calibres = median_calibres(slices, structures, MARGIN * stride)
    if not calibres:
        return None
    name = min(calibres, key=calibres.get)
    ceiling = ceilings(slices, {name: structures[name]}, stride)[name]
    return None if ceiling >= _HIGH_CEILING else ThinStructure(name, calibres[name], ceiling)


def median_calibres(slices: Sequence[np.ndarray], structures: Members, limit: float) -> dict[str, float]:
    """Median calibre in pixels of the structures that are thinner than a limit.

    The calibre at a pixel of the skeleton is twice its distance to the background, minus 1: the width of a line. A
    structure whose pixels are on average further from the background than that cannot be thin, and its skeleton is not
    computed.

    Args:
        slices: label maps (h, w).
        structures: those that are wider, or occur nowhere, have no entry.
        limit: in pixels.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    found = {}
    for name, labels in structures.items():
        masks = [np.isin(labelled, labels) for labelled in slices]
        distances = [distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1] for mask in masks]
        inside = np.concatenate([distance[mask] for distance, mask in zip(distances, masks, strict=True)])
        if not inside.size or 2 * np.median(inside) - 1 >= limit:
            continue
        centres = [distance[skeletonize(mask)] for distance, mask in zip(distances, masks, strict=True)]
        found[name] = float(2 * np.median(np.concatenate(centres)) - 1)
    return {name: calibre for name, calibre in found.items() if calibre < limit}


def ceilings(slices: Sequence[np.ndarray], structures: Members, stride: float) -> dict[str, float]:
    """Dice of each structure if every cell of a grid knew its share of it, and nothing finer.

    Shares are enlarged bilinearly and cut at one half. Not a strict bound: trained logits may be sharper than shares.

    Args:
        slices: label maps (h, w).
        structures: their labels.
        stride: side of a cell, in pixels.
    """
    return {name: _ceiling([np.isin(each, labels) for each in slices], stride) for name, labels in structures.items()}


def _ceiling(masks: Sequence[np.ndarray], stride: float) -> float:
    overlap = total = 0
    for truth in masks:
        drawn = _through_a_grid(truth, stride) > 0.5
        overlap += 2 * int((drawn & truth).sum())
        total += int(drawn.sum()) + int(truth.sum())
    return overlap / max(1, total)


def _through_a_grid(mask: np.ndarray, stride: float) -> np.ndarray:
    import torch  # planning does without, unless something is thin
    import torch.nn.functional as F

    cells = [max(1, round(side / stride)) for side in mask.shape]
    shares = F.interpolate(torch.from_numpy(mask).float()[None, None], size=cells, mode="area")
    return F.interpolate(shares, size=mask.shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def scale_for(calibre: float, stride: float, margin: float = MARGIN) -> int:
    """Smallest integer factor by which an image must be enlarged for a structure to be as wide as `margin` strides.

    Args:
        calibre: of the structure, in pixels.
        stride: of the logits on the image as it is, in pixels. The stride need not become less than a pixel.
        margin: in strides.
    """
    wanted = max(_FINEST_STRIDE, calibre / margin)
    return max(1, int(np.ceil(stride / wanted)))

"""Betti numbers of a mask: its pieces and its holes."""

from __future__ import annotations

import numpy as np


def num_pieces(mask: np.ndarray) -> int:
    """Connected components of a boolean mask, with 8 neighbours in 2D and 26 in 3D (Betti number 0)."""
    from scipy.ndimage import label

    return int(label(mask, np.ones((3,) * mask.ndim))[1])


def num_holes(mask: np.ndarray) -> int:
    """Holes of a 2D mask, or tunnels of a 3D mask (Betti number 1).

    The background has 4 neighbours in 2D and 6 in 3D, and continues beyond the border. In 2D, this is the number of
    background components that the mask encloses. In 3D, it follows from the Euler number: pieces - tunnels + cavities.
    """
    from skimage.measure import euler_number

    cavities = _num_enclosed(mask) if mask.ndim == 3 else 0
    return num_pieces(mask) + cavities - int(euler_number(mask, connectivity=mask.ndim))


def _num_enclosed(mask: np.ndarray) -> int:
    """Background components that do not reach the border; faces connect them."""
    from scipy.ndimage import label

    return int(label(~np.pad(mask, 1))[1]) - 1

"""Lines for the log of a training on volumes: the axis of the slices, and whether they are large enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FEWEST_TOKENS = 8  # of a side of a slice; below, a transformer sees hardly more than single tokens


def volume_notes(
    patch_size: Sequence[int], spacing: Sequence[float], transpose_forward: Sequence[int], *, token: int, scale: int
) -> list[str]:
    """Returns the lines.

    Args:
        patch_size: slices, height and width.
        spacing: of the plans, in mm, in the same order.
        transpose_forward: the plans' order of the axes of an array.
        token: side of a patch of the transformer, in pixels.
        scale: `model.input_scale`.
    """
    notes = [
        f"Slices lie along axis {transpose_forward[0]} of the arrays (order z, y, x) and are {spacing[0]:.3g} mm "
        f"apart; a patch has {patch_size[0]}"
    ]
    height, width = patch_size[1:]
    if scale == 1 and min(height, width) < _FEWEST_TOKENS * token:
        needed = math.ceil(_FEWEST_TOKENS * token / min(height, width))
        tokens = " x ".join(str(math.ceil(side / token)) for side in (height, width))
        notes.append(
            f"A slice of {height} x {width} pixels is {tokens} tokens of the transformer, which are few; set "
            f"model.input_scale={needed}, or a training.patch_size with larger slices if the images have them"
        )
    return notes

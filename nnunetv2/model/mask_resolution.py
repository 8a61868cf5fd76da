"""Resolution at which EoMT and the plain mask transformer draw masks: doublings of the patch grid.

Settings import this, so it must load without torch.
"""

from __future__ import annotations

import math

_COARSEST_STRIDE = 4  # masks have at least a quarter of the image's resolution


def default_upscale_blocks(patch_size: int) -> int:
    """Number of doublings until masks have at least a quarter of the image's resolution; at least 1.

    Args:
        patch_size: side of a patch in pixels.
    """
    return max(1, math.ceil(math.log2(patch_size / _COARSEST_STRIDE)))


def mask_stride(patch_size: int, num_upscale_blocks: int | None) -> float:
    """Side in pixels of what one value of a mask stands for; None: the default number of doublings."""
    doublings = default_upscale_blocks(patch_size) if num_upscale_blocks is None else num_upscale_blocks
    return patch_size / 2**doublings


def unnamed_upscale_blocks(patch_size: int) -> int:
    """Number of doublings of an EoMT whose plans do not name it.

    That was the only choice before the setting existed. It stops at the last resolution not above a quarter: patches of
    14 are doubled once, to a seventh.

    Source: `num_upscale` in `models/eomt.py` of tue-mps/eomt.
    """
    return max(1, int(math.log2(patch_size / _COARSEST_STRIDE)))

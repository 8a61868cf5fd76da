"""Images whose sides a model can divide."""

from __future__ import annotations

import math


def check_image_size(height: int, width: int, multiple: int) -> None:
    """Refuses images whose sides are no multiples of what a model needs.

    Raises:
        ValueError: If a side is none; the message names the next size that fits.
    """
    if height % multiple or width % multiple:
        fitting = [math.ceil(side / multiple) * multiple for side in (height, width)]
        raise ValueError(
            f"An image of {height} x {width} was given to a model that takes multiples of {multiple}: "
            f"pad or resize it to {fitting[0]} x {fitting[1]}."
        )

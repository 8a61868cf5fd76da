"""Check of image sizes against a model's required divisor."""

from __future__ import annotations

import math


def check_image_size(height: int, width: int, multiple: int) -> None:
    """Rejects images whose sides are not multiples of the model's divisor.

    Raises:
        ValueError: If a side is not a multiple; the message names the next valid size.
    """
    if height % multiple or width % multiple:
        fitting = [math.ceil(side / multiple) * multiple for side in (height, width)]
        raise ValueError(
            f"An image of {height} x {width} was given to a model that takes multiples of {multiple}: "
            f"pad or resize it to {fitting[0]} x {fitting[1]}."
        )

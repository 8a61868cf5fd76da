"""Draw a picture often enough to be of use, and seldom enough to cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

LARGEST_SHARE = 0.05  # of the time of a training


class PictureSchedule:
    """Draws the first picture, the last one, and of those between as many as take `LARGEST_SHARE` of the time."""

    def __init__(self) -> None:
        self._next = 0.0

    def draw(self, draw: Callable[[], None], *, is_last: bool) -> None:
        """Calls `draw` if it is time for it."""
        started = time.monotonic()
        if not is_last and started < self._next:
            return
        draw()
        ended = time.monotonic()
        self._next = ended + (ended - started) * (1 / LARGEST_SHARE - 1)

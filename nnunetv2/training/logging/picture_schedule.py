"""Limits the time spent on drawing the progress picture."""

from __future__ import annotations

import time
from collections.abc import Callable

LARGEST_SHARE = 0.05  # of the training time


class PictureSchedule:
    """Draws the first and the last picture, and those between only within `LARGEST_SHARE` of the time."""

    def __init__(self) -> None:
        self._next = 0.0

    def draw(self, draw: Callable[[], None], *, is_last: bool) -> None:
        """Calls `draw` if the time budget allows it."""
        started = time.monotonic()
        if not is_last and started < self._next:
            return
        draw()
        ended = time.monotonic()
        self._next = ended + (ended - started) * (1 / LARGEST_SHARE - 1)

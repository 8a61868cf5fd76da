"""Contents of the files that were read last, so that training does not open and parse a case for every sample."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class RecentlyRead:
    """Remembers what was read from files, and forgets what was not needed for longest.

    A file that was replaced or changed is read again. Copies in other processes start empty, because open files cannot
    be sent there.

    Args:
        limit: largest sum of the weights of what is remembered.
        weigh: returns the weight of a file from its state.
    """

    def __init__(self, limit: int, weigh: Callable[[os.stat_result], int]) -> None:
        self._limit, self._weigh = limit, weigh
        self._weight = 0
        self._entries: OrderedDict[str, tuple[tuple[int, ...], int, Any]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._limit, self._weigh)

    def get(self, path: str, read: Callable[[str], Any]) -> Any:
        """Returns `read(path)`, or what it returned before if the file is the same."""
        try:
            state = os.stat(path)
        except OSError:  # `read` has the message for it
            return read(path)
        version = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
        known = self._entries.get(path)
        if known is not None and known[0] == version:
            self._entries.move_to_end(path)
            return known[2]
        self._forget(path)
        content = read(path)
        self._entries[path] = (version, self._weigh(state), content)
        self._weight += self._entries[path][1]
        while self._weight > self._limit:
            self._forget(next(iter(self._entries)))
        return content

    def _forget(self, path: str) -> None:
        if path in self._entries:
            self._weight -= self._entries.pop(path)[1]

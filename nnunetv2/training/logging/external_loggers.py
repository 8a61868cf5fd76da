"""External loggers, whose failures must not stop a training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from nnunetv2.errors import NNUNetError

_log = logging.getLogger(__name__)

MOST_FAILURES = 20  # consecutive failures before a logger is disabled: each may have waited for a time-out


class FailureGuard:
    """Creates and calls loggers; warns about the first failure of each and suppresses later ones.

    A logger that fails `MOST_FAILURES` times in a row is disabled.
    """

    def __init__(self) -> None:
        self._failures: dict[int, int] = {}  # consecutive failures, by id of the logger

    def make(self, make: Callable[..., Any], *args: Any) -> list[Any]:
        """Returns the logger in a list, or an empty list if it cannot be created.

        Raises:
            NNUNetError: the user can fix the cause.
        """
        try:
            return [make(*args)]
        except NNUNetError:
            raise
        except Exception as err:
            _warn(f"{make.__name__} could not be started", err, "the training goes on without it")
            return []

    def call(self, logger: Any, method: str, *args: Any) -> None:
        """Calls a method of a logger."""
        failures = self._failures.get(id(logger), -1)  # -1: has never failed
        if failures >= MOST_FAILURES:
            return
        try:
            getattr(logger, method)(*args)
        except Exception as err:
            if failures < 0:
                _warn(f"{type(logger).__name__} failed", err, "the training goes on; its later failures are not told")
            self._failures[id(logger)] = max(failures, 0) + 1
        else:
            if failures > 0:
                self._failures[id(logger)] = 0


def _warn(what: str, err: Exception, consequence: str) -> None:
    _log.warning("%s (%s: %s); %s", what, type(err).__name__, " ".join(str(err).split()), consequence)
    _log.debug("%s, in full", what, exc_info=err)

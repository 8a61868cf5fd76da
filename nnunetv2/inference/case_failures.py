"""Go on when a case fails, and say at the end which ones did."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2.errors import NNUNetError
from nnunetv2.utilities.atomic_files import write_json
from nnunetv2.utilities.background_workers import BackgroundWorkerError

logger = logging.getLogger(__name__)

FAILURES_FILE = "failures.json"


class PartialPredictionError(NNUNetError, RuntimeError):
    """Some cases were predicted and some failed."""

    exit_code = 4


class CaseFailures:
    """Collects the errors of cases."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}

    @contextmanager
    def of(self, case: str) -> Iterator[None]:
        """Blames an error in the block on a case and goes on after the block; the death of a worker goes through."""
        try:
            yield
        except BackgroundWorkerError:
            raise
        except Exception as err:
            self.errors[case] = err
            logger.error("%s failed: %s", case, _described(err))
            logger.debug("Details of the failure of %s", case, exc_info=err)

    def raise_any(self, num_cases: int) -> None:
        """Raises if a case failed: the case's own error if no other succeeded, else `PartialPredictionError`."""
        if not self.errors:
            return
        case, error = next(iter(self.errors.items()))
        if len(self.errors) < num_cases:
            raise PartialPredictionError(
                f"{len(self.errors)} of {num_cases} cases failed: {self._summary()}; the others are complete"
            ) from error
        if isinstance(error, NNUNetError):
            raise type(error)(self._summary()) from error
        raise RuntimeError(self._summary()) from error

    def _summary(self) -> str:
        shown = [f"{case} ({_described(error)})" for case, error in list(self.errors.items())[:3]]
        return ", ".join(shown) + (f" and {len(self.errors) - 3} more" if len(self.errors) > 3 else "")

    def write(self, folder: str) -> None:
        """Writes `failures.json`, {case: reason}; without failures, removes the one of an earlier attempt."""
        path = os.path.join(folder, FAILURES_FILE)
        if self.errors:
            write_json({case: _described(error) for case, error in self.errors.items()}, path)
        elif os.path.exists(path):
            os.remove(path)


def _described(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, NNUNetError) else f"{type(error).__name__}: {text}"

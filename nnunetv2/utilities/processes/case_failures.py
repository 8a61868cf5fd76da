"""Continue after the failure of a case, and report the failed cases at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.errors import NNUNetError, PartialError
from nnunetv2.utilities.processes.worker_pool import BackgroundWorkerError

logger = logging.getLogger(__name__)

FAILURES_FILE = "failures.json"


class PartialPredictionError(PartialError):
    """Some cases were written and some failed."""


class CaseFailures:
    """Collects errors per case."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.errors: dict[str, Exception] = {}

    @contextmanager
    def of(self, case: str) -> Iterator[None]:
        """Record an error in the block as that of a case and continue; only the death of a worker is raised."""
        self.begun.add(case)
        try:
            yield
        except BackgroundWorkerError:
            raise
        except Exception as err:
            self.errors[case] = err
            logger.error("%s failed: %s", case, _described(err))
            logger.debug("Details of the failure of %s", case, exc_info=err)

    def raise_any(self, num_cases: int) -> None:
        """Raise if a case failed: the case's own error if no other succeeded, else `PartialPredictionError`."""
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
        """Update `failures.json`, {case: reason}: the cases that failed and have not succeeded since.

        An empty file is removed. Entries of other runs into the same folder are kept. If the file cannot be written,
        because the disk that made cases fail is still full, this is logged: `raise_any` tells of the cases.
        """
        path = os.path.join(folder, FAILURES_FILE)
        with _one_at_a_time(folder):
            known = _read_failures(path)
            others = {case: reason for case, reason in known.items() if case not in self.begun}
            failures = {**others, **{case: _described(error) for case, error in self.errors.items()}}
            if failures:
                try:
                    write_json(dict(sorted(failures.items())), path)
                except OSError as err:
                    logger.error("%s", err)
            elif known:
                os.remove(path)


@contextmanager
def _one_at_a_time(folder: str) -> Iterator[None]:
    """Lock the folder against other processes that predict into it; does nothing if locks are not supported."""
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # Windows, and some network file systems
            import fcntl

            lock = os.open(folder or os.curdir, os.O_RDONLY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_failures(path: str) -> dict[str, str]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _described(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, NNUNetError) else f"{type(error).__name__}: {text}"

"""Write one file per case, in worker processes where that pays; a case that fails does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from nnunetv2.errors import NNUNetError
from nnunetv2.utilities.processes.case_failures import CaseFailures
from nnunetv2.utilities.processes.case_pool import map_cases


def write_every_case(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    output_folder: str | os.PathLike,
    file_ending: str,
    num_processes: int,
    *,
    description: str = "",
    show_progress: bool = False,
) -> None:
    """Calls `function(*job)` for each case, which writes `{case}{file_ending}` into the folder.

    Cases that fail are in `failures.json` of the folder, with the reason. For the other arguments see `map_cases`.

    Args:
        jobs: the arguments by case.

    Raises:
        PartialPredictionError: some cases failed; the others are complete.
        NNUNetError: of the type of the first case, if all failed.
        WorkerLostError: a worker was killed; no more cases were written.
    """
    failures = CaseFailures()
    calls = [(function, job) for job in jobs.values()]
    shown = {"names": list(jobs), "description": description, "show_progress": show_progress}
    try:
        for case, error in zip(jobs, map_cases(_error_of, calls, num_processes, **shown), strict=True):
            with failures.of(case):
                if error is not None:
                    raise _with_older_file(error, os.path.join(output_folder, case + file_ending))
    finally:
        failures.write(os.fspath(output_folder))
    failures.raise_any(len(jobs))


def _error_of(function: Callable[..., Any], job: tuple) -> Exception | None:
    try:
        function(*job)
    except Exception as err:  # of whatever kind: it is told with the name of its case
        return err
    return None


def _with_older_file(error: Exception, path: str) -> Exception:
    """Says of a case that failed that what lies there is of an earlier run."""
    if not os.path.exists(path):
        return error
    note = f"{os.path.basename(path)} is there from an earlier run"
    if isinstance(error, NNUNetError):
        return type(error)(f"{error}; {note}")
    return NNUNetError(f"{type(error).__name__}: {error}; {note}")

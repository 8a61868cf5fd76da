"""Runs one function over all cases, in worker processes or here, and says which case went wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from nnunetv2.errors import NNUNetError


class WorkerLostError(NNUNetError):
    """A worker process ended without a Python error, most often because the machine ran out of memory."""


def run_for_each_case(
    function: Callable[..., Any],
    arguments: Mapping[str, tuple],
    num_processes: int,
    description: str,
    show_progress: bool = True,
) -> None:
    """Calls `function(*arguments[case])` for every case and stops at the first one that fails.

    Args:
        function: importable by workers; what it returns is dropped.
        arguments: by case name.
        num_processes: worker processes; 1 or less works in this process.
        description: of the progress bar.
        show_progress: whether to draw it.

    Raises:
        NNUNetError: of the type that the case raised, with the case's name before its message.
        RuntimeError: from any other error of a case.
    """
    with tqdm(total=len(arguments), desc=description, disable=not show_progress) as progress:
        num_processes = min(num_processes, len(arguments))
        if num_processes <= 1:
            for case, values in arguments.items():
                _named(case, partial(function, *values))
                progress.update()
            return
        workers = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"), initializer=_use_one_thread)
        try:
            futures = {workers.submit(function, *values): case for case, values in arguments.items()}
            for future in as_completed(futures):
                _named(futures[future], future.result, lambda: _unfinished(futures, num_processes))
                progress.update()
        finally:
            workers.shutdown(cancel_futures=True)


def _named(case: str, call: Callable[[], Any], unfinished: Callable[[], str] | None = None) -> None:
    try:
        call()
    except BrokenProcessPool as err:
        raise WorkerLostError(
            f"A worker process ended abruptly, most often because memory ran out, while these cases were not finished: "
            f"{unfinished() if unfinished else case}; use fewer processes (-np)"
        ) from err
    except NNUNetError as err:
        raise type(err)(f"Case {case}: {err}") from err
    except Exception as err:
        raise RuntimeError(f"Case {case} failed: {type(err).__name__}: {err}") from err


def _unfinished(futures: Mapping[Future, str], at_most: int) -> str:
    """Names the first cases in line that have no result; the lost worker had one of them."""
    cases = [case for future, case in futures.items() if not future.done() or future.exception() is not None]
    return ", ".join(cases[:at_most]) + (f" and {len(cases) - at_most} more" if len(cases) > at_most else "")


def _use_one_thread() -> None:
    """Workers share the cores already; threads of numpy and torch inside each would only compete for them."""
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are loaded later on
    threadpool_limits(1)

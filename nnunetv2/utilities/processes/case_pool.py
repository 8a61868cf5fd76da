"""Apply a function to every case, in worker processes where this is faster, and report which case failed.

`map_cases` stops at the first failure; `write_every_case` continues and reports the failed cases at the end.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from typing import Any

from tqdm import tqdm

from dinov3.utils.processes.cores import num_available_cores
from dinov3.utils.processes.process_end import become_worker
from nnunetv2.errors import NNUNetError, UsageError
from nnunetv2.utilities.processes.case_failures import CaseFailures
from nnunetv2.utilities.processes.worker_pool import kill_workers

_SECONDS_ALONE = 3.0  # of computing, about as much as a few workers need to import their modules
_FEW_BYTES = 1 << 26  # of compressed images; more may need so much memory that a worker should be killed for it, not us


class WorkerLostError(NNUNetError):
    """A worker process died without a Python error, most often because the machine ran out of memory."""


def map_cases(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    num_processes: int,
    *,
    names: Sequence[str] | None = None,
    description: str = "",
    show_progress: bool = False,
    files: Iterable[str | os.PathLike] | None = None,
) -> Iterator[Any]:
    """Yield `function(*job)` for each job, in order; stops at the first failure.

    Workers are spawned and never outnumber the jobs or the processor cores. A single worker would only add its startup
    time, so in that case everything runs in this process. Likewise, this process begins alone with small `files`, and
    starts workers for the remaining jobs after three seconds of computing.

    Args:
        function: importable by name; arguments and results must be picklable.
        jobs: arguments of each call.
        num_processes: maximum number of workers, at least 1.
        names: of the cases; prefixed to error messages if given.
        description: label of the progress bar.
        show_progress: draw a progress bar, if the output is a terminal.
        files: all files that the jobs read; None: their size is unknown, and workers start at once.

    Raises:
        UsageError: `num_processes` is below 1.
        WorkerLostError: a worker was killed, most often because memory ran out.
        NNUNetError: of the type that the case raised.
        RuntimeError: for any other error of a named case.
    """
    if num_processes < 1:
        raise UsageError(f"The number of processes is {num_processes}; it must be at least 1")
    num_workers = min(num_processes, len(jobs), num_available_cores())
    if num_workers <= 1:
        results = _here(function, jobs)
    elif files is not None and _bytes_of(files) < _FEW_BYTES:
        results = _here_at_first(function, jobs, num_workers, names)
    else:
        results = _in_workers(function, jobs, num_workers, names)
    # Close the generator here: the garbage collector may close it in a thread of the pool, which cannot join itself.
    with tqdm(total=len(jobs), desc=description, disable=None if show_progress else True) as progress, closing(results):
        for number, result in enumerate(results):
            value = result() if names is None else _named(names[number], result)
            progress.update()
            yield value


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
    """Call `function(*job)` for each case, which writes `{case}{file_ending}` into the folder.

    Failed cases are listed in the folder's `failures.json` with the reason. For the other arguments see `map_cases`.

    Args:
        jobs: arguments per case.

    Raises:
        PartialPredictionError: some cases failed; the others are complete.
        NNUNetError: all cases failed; has the type of the first error.
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
    except Exception as err:  # of any kind: it is reported under the name of its case
        return err
    return None


def _with_older_file(error: Exception, path: str) -> Exception:
    """Note in the error of a case that its output file exists, but from an earlier run."""
    if not os.path.exists(path):
        return error
    note = f"{os.path.basename(path)} is there from an earlier run"
    if isinstance(error, NNUNetError):
        return type(error)(f"{error}; {note}")
    return NNUNetError(f"{type(error).__name__}: {error}; {note}")


def _here(function: Callable[..., Any], jobs: Sequence[tuple]) -> Generator[Callable[[], Any], None, None]:
    for job in jobs:
        yield partial(function, *job)


def _bytes_of(files: Iterable[str | os.PathLike]) -> int:
    return sum(os.path.getsize(file) for file in files if os.path.exists(file))  # missing ones fail in their job


def _here_at_first(
    function: Callable[..., Any], jobs: Sequence[tuple], num_workers: int, names: Sequence[str] | None
) -> Generator[Callable[[], Any], None, None]:
    from threadpoolctl import threadpool_limits

    begin, done = time.process_time(), 0  # not the time of day: on a busy machine workers start late, too
    with threadpool_limits(1):  # as in workers, so that sums are rounded alike
        while done < len(jobs) and time.process_time() - begin < _SECONDS_ALONE:
            yield partial(function, *jobs[done])
            done += 1
    if done < len(jobs):
        others = None if names is None else names[done:]
        yield from _in_workers(function, jobs[done:], min(num_workers, len(jobs) - done), others)


def _in_workers(
    function: Callable[..., Any], jobs: Sequence[tuple], num_workers: int, names: Sequence[str] | None
) -> Generator[Callable[[], Any], None, None]:
    # Threads and a CUDA context do not survive a fork.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_prepare_worker)
    try:
        futures = [executor.submit(function, *job) for job in jobs]
        for future in futures:
            if isinstance(future.exception(), BrokenProcessPool):
                raise WorkerLostError(
                    f"A worker process was killed, most likely because memory ran out{_unfinished(futures, names)}; "
                    "use fewer processes (-np, -npfp) or free memory"
                ) from future.exception()
            yield future.result
    except (Exception, GeneratorExit):
        raise
    except BaseException:  # this process is to end now
        kill_workers(executor)
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _named(case: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except NNUNetError as err:
        raise type(err)(f"Case {case}: {err}") from err
    except Exception as err:
        raise RuntimeError(f"Case {case} failed: {type(err).__name__}: {err}") from err


def _unfinished(futures: Sequence[Future], names: Sequence[str] | None, at_most: int = 4) -> str:
    """List the first unfinished cases; the lost worker was processing one of them."""
    if names is None:
        return ""
    cases = [name for name, future in zip(names, futures, strict=True) if not future.done() or future.exception()]
    more = f" and {len(cases) - at_most} more" if len(cases) > at_most else ""
    return f" while these cases were not finished: {', '.join(cases[:at_most])}{more}"


def _prepare_worker() -> None:
    """Limit a worker to one thread: the workers share the cores, and more threads would compete for them."""
    from threadpoolctl import threadpool_limits

    become_worker()
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries loaded later
    threadpool_limits(1)

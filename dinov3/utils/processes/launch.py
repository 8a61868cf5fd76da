"""Starts several processes on this machine as one group, monitors them, and reports which one died."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from dinov3.utils.command_line import EXIT_INTERRUPTED
from dinov3.utils.errors import ConnectionLostError, PreemptedError, ProcessDiedError, UserError
from dinov3.utils.processes import stop_signals
from dinov3.utils.processes.cores import num_available_cores, use_threads
from dinov3.utils.processes.process_end import end_with_parent

_POLL_SECONDS = 0.2  # polling: workers of a killed process may hold its connection open, so that no end of file arrives
_SECONDS_TO_SAY_WHY = 5  # after a lost connection, for the process that caused it to report the reason
_SECONDS_TO_STOP = 10


@dataclass
class _Rank:
    """One process and its failure, if any."""

    number: int
    process: BaseProcess
    connection: Connection
    failure: UserError | None = None
    is_consequence: bool = field(default=False)
    """true if the failure only reports that another process is gone"""

    def look(self) -> None:
        """Records a failure sent by the process or shown by its exit code."""
        if self.failure is None:
            with contextlib.suppress(EOFError, OSError):
                if self.connection.poll():
                    self.failure, self.is_consequence = self.connection.recv()
        if self.failure is None and self.process.exitcode not in (None, 0):
            self.failure = ProcessDiedError(_described_end(self.process.exitcode))


def launch(
    function: Callable[..., None],
    args: tuple,
    num_processes: int,
    *,
    advice: str,
    others_finish: bool = False,
) -> None:
    """Runs `function(*args)` in several processes of this machine and waits for all of them.

    The group is described in the environment as by `torchrun`, see `process_group_from_environment`. The processes
    share the cores of the machine. If one fails, the others are stopped; if this process ends, all end. Within
    `ended_by_signals`, a signal to this process reaches all of them, and they stop as they would by themselves.

    Args:
        function: importable by name; its arguments are pickled.
        advice: end of the message: what the user can do after a process died.
        others_finish: let the other processes finish when one fails.

    Raises:
        UserError: a process raised it; the type is kept.
        ProcessDiedError: a process was killed, or raised an error that is not a `UserError`.
        PreemptedError: this process received a signal.
    """
    with stop_signals.deferred(take_effect_at_end=False):
        ranks = _start(function, args, num_processes)
        try:
            _watch(ranks, others_finish)
        finally:
            _stop(ranks)
    failed = sorted((rank for rank in ranks if rank.failure is not None), key=lambda rank: rank.is_consequence)
    if not failed:
        return
    failure = next((rank.failure for rank in failed if isinstance(rank.failure, PreemptedError)), failed[0].failure)
    if stop_signals.requested() is not None and not isinstance(failure, PreemptedError):
        raise PreemptedError(f"Stopped by {stop_signals.requested()} before all processes were ready. {advice}")
    if isinstance(failure, ProcessDiedError) or failed[0].is_consequence:
        others = "have finished" if others_finish else "were stopped"
        raise ProcessDiedError(
            f"Process {failed[0].number} of {num_processes} (the first is 0) {failure}; the others {others}. {advice}"
        )
    raise failure


def find_free_network_port() -> int:
    """Returns a free TCP port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _start(function: Callable[..., None], args: tuple, num_processes: int) -> list[_Rank]:
    context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
    common = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(find_free_network_port())),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
    }
    _start_quiet_tracker()
    ranks = []
    try:
        for number in range(num_processes):
            receiver, sender = context.Pipe(duplex=False)
            environment = {**common, "RANK": str(number), "LOCAL_RANK": str(number)}
            process = context.Process(target=_run, args=(function, args, environment, sender))
            process.start()
            sender.close()  # only the child keeps it, so the pipe closes when the child ends
            ranks.append(_Rank(number, process, receiver))
    except BaseException:
        _stop(ranks)
        raise
    return ranks


def _start_quiet_tracker() -> None:
    """Starts Python's resource tracker without its warnings, which a killed process would cause."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _watch(ranks: Sequence[_Rank], others_finish: bool) -> None:
    """Waits until all have ended or, unless `others_finish`, until one has failed and had time to report why."""
    deadline = None
    is_told = False
    while any(rank.process.is_alive() for rank in ranks):
        if stop_signals.requested() is not None and not is_told:
            is_told = True
            _tell_to_stop(ranks)
        wait([rank.process.sentinel for rank in ranks if rank.process.is_alive()], timeout=_POLL_SECONDS)
        for rank in ranks:
            rank.look()
        if others_finish:
            continue
        failed = [rank for rank in ranks if rank.failure is not None]
        if any(not rank.is_consequence for rank in failed):
            return
        if failed and deadline is None:
            deadline = time.monotonic() + _SECONDS_TO_SAY_WHY
        if deadline is not None and time.monotonic() > deadline:
            return
    for rank in ranks:
        rank.look()


def _tell_to_stop(ranks: Sequence[_Rank]) -> None:
    for rank in ranks:
        if stop_signals.STOP_RANK is None:
            rank.process.terminate()
        elif rank.process.is_alive():
            os.kill(rank.process.pid, stop_signals.STOP_RANK)


def _stop(ranks: Sequence[_Rank]) -> None:
    """Terminates the running processes, and kills those that do not react."""
    for rank in ranks:
        rank.process.terminate()
    # One deadline for all processes, not one per process.
    deadline = time.monotonic() + _SECONDS_TO_STOP
    for rank in ranks:
        rank.process.join(max(0.0, deadline - time.monotonic()))
        if rank.process.is_alive():
            rank.process.kill()
            rank.process.join()
        rank.connection.close()


def _run(function: Callable[..., None], args: tuple, environment: dict[str, str], connection: Connection) -> None:
    """Runs in each process. Errors are sent to the parent, which reports them once for all processes."""
    os.environ.update(environment)
    end_with_parent()
    _use_own_cores(int(environment["LOCAL_WORLD_SIZE"]))
    try:
        function(*args)
    except KeyboardInterrupt:  # sent to all processes of a terminal; the parent reports it
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as err:
        if err.code:
            connection.send((ProcessDiedError("ended with another one"), True))
        raise
    except UserError as err:
        connection.send((type(err)(str(err)), isinstance(err, ConnectionLostError)))
        sys.exit(err.exit_code)
    except Exception as err:
        traceback.print_exc()
        reason = " ".join(str(err).split())
        connection.send((ProcessDiedError(f"met {type(err).__name__} ({reason}), its traceback is above"), False))
        sys.exit(1)


def _use_own_cores(num_processes: int) -> None:
    if "OMP_NUM_THREADS" not in os.environ:  # the user's choice
        use_threads(max(1, num_available_cores() // num_processes))


def _described_end(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = next((each.name for each in signal.Signals if each == -exit_code), f"number {-exit_code}")
    reason = ", mostly for lack of memory" if name == "SIGKILL" else ""
    return f"was killed by signal {name}{reason}"

"""Termination of processes: together with their parent, by nobody else, or on SIGTERM with an explanation."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_SIGTERM = 128 + signal.SIGTERM
_POLL_SECONDS = 1.0


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, even if that was killed."""
    threading.Thread(target=_wait_for_parent_and_leave, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent_and_leave(parent_id: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    elif os.name != "nt":  # started by another program, such as torchrun
        while os.getppid() == parent_id:
            time.sleep(_POLL_SECONDS)
    else:
        return
    os._exit(1)  # nobody is left to take a result or an exception


def become_worker(*_: object) -> None:
    """Leaves this worker's end to its parent: it ends with it, or when the parent terminates it.

    Terminals and schedulers send their signals to all processes of a job. The parent reacts to them: it may need its
    workers to complete a step, and stops them afterwards. Call it first in the main thread of a worker.
    """
    signal.set_wakeup_fd(-1)  # inherited by forked workers
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_leave_on_sigterm_of, args=(os.getppid(),), daemon=True).start()
    end_with_parent()


def _leave_on_sigterm_of(parent_id: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent_id:
        pass
    os._exit(EXIT_SIGTERM)


@contextmanager
def line_on_sigterm(line: str, grace: float = 0.0, is_handled: Callable[[], object] = bool) -> Iterator[None]:
    """Makes SIGTERM write a line to stderr before it ends this process; enter it in the main thread.

    A thread writes the line: a Python signal handler would only run once the main thread returns from a blocking call,
    and a process that waits on a GPU for a dead one never returns.

    Args:
        grace: seconds in which the main thread may end the process itself; it has its own handler for SIGTERM.
        is_handled: asked after that time; true if the main thread has seen the signal, which then ends the process.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = None if grace else signal.signal(signal.SIGTERM, _leave_to_thread)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_restore_default_in_fork)
    threading.Thread(target=_write_line_and_leave, args=(reader, line, grace, is_handled), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        os.close(writer)


def _leave_to_thread(number: int, frame: object) -> None:
    """Does nothing, but is needed: Python wakes the thread only for signals with a handler."""


def _restore_default_in_fork() -> None:
    """Forked workers share the pipe and must not wake their parent's thread."""
    if signal.getsignal(signal.SIGTERM) is _leave_to_thread:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write_line_and_leave(reader: int, line: str, grace: float, is_handled: Callable[[], object]) -> None:
    while received := os.read(reader, 1):
        if received[0] != signal.SIGTERM:
            continue
        time.sleep(grace)
        if not is_handled():
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            os._exit(EXIT_SIGTERM)
    os.close(reader)

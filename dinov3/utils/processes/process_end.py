"""Termination of processes: together with their parent, or on SIGTERM with an explanation."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_SIGTERM = 128 + signal.SIGTERM


def end_with_parent() -> None:
    """Ends this `multiprocessing` process as soon as its parent has ended, even if the parent was killed."""
    threading.Thread(target=_wait_for_parent_and_leave, daemon=True).start()


def _wait_for_parent_and_leave() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody is left to take a result or an exception


@contextmanager
def line_on_sigterm(line: str) -> Iterator[None]:
    """Makes SIGTERM write a line to stderr before it ends this process; enter it in the main thread.

    A thread writes the line: a Python signal handler would only run once the main thread returns from a blocking call,
    and a process that waits on a GPU for a dead one never returns.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGTERM, _leave_to_thread)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_restore_default_in_fork)
    threading.Thread(target=_write_line_and_leave, args=(reader, line), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)


def _leave_to_thread(number: int, frame: object) -> None:
    """Does nothing, but is needed: Python wakes the thread only for signals with a handler."""


def _restore_default_in_fork() -> None:
    """Forked workers share the pipe and must not wake their parent's thread."""
    if signal.getsignal(signal.SIGTERM) is _leave_to_thread:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write_line_and_leave(reader: int, line: str) -> None:
    while received := os.read(reader, 1):
        if received[0] == signal.SIGTERM:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            os._exit(EXIT_SIGTERM)
    os.close(reader)

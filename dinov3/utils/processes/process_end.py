"""Say why a process ends when it is told to stop, even while it waits for a device or for another process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_TOLD_TO_STOP = 128 + signal.SIGTERM


@contextmanager
def last_words(line: str) -> Iterator[None]:
    """Has SIGTERM write a line to stderr before it ends this process; to be entered in the main thread.

    A thread does so. A Python signal handler would wait until the main thread is back from whatever it waits for, and a
    process that waits for a dead one on a GPU never is.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGTERM, _leave_to_thread)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_end_as_usual)
    threading.Thread(target=_wait, args=(reader, line), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)


def _leave_to_thread(number: int, frame: object) -> None:
    """Python passes only those signals on that have a handler."""


def _end_as_usual() -> None:
    """Workers must not wake the thread of the process that they were forked from."""
    if signal.getsignal(signal.SIGTERM) is _leave_to_thread:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _wait(reader: int, line: str) -> None:
    while received := os.read(reader, 1):
        if received[0] == signal.SIGTERM:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            os._exit(EXIT_TOLD_TO_STOP)
    os.close(reader)

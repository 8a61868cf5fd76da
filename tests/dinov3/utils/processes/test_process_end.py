"""What a process says when it is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# The main thread waits in C, where no Python signal handler runs; a forked worker ends as if nothing were changed.
BLOCKED = """
import os, signal, threading, time
from dinov3.utils.processes.process_end import line_on_sigterm

with line_on_sigterm("going"):
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(writer, b"x")
        time.sleep(20)
        os._exit(0)
    os.read(reader, 1)
    os.kill(worker, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
    lock = threading.Lock()
    lock.acquire()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # another thread of the process gets the signal
    lock.acquire()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_line_is_written_while_the_main_thread_waits_and_workers_say_nothing() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == f"{-signal.SIGTERM}\n"
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "going\n")

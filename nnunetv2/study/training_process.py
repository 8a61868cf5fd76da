"""Run a training command in a process that dies, with all its children, as soon as its starter does.

    python training_process.py MODULE PROGRAM WORD ...

runs the training command PROGRAM of MODULE. The starter makes this process the leader of its own process group and
holds the other end of its standard input without ever writing to it. When the starter ends, even by SIGKILL, the input
reaches its end.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path

_STDIN = 0
_PASSED_OVER = ("SIGUSR1", "SIGUSR2")  # while torch is imported: Slurm signals every process of a job


def main() -> int:
    """Run the command; return its exit code."""
    module, *command_line = sys.argv[1:]
    sys.argv = command_line
    sys.path[:1] = []  # this file's folder, whose modules must not shadow top-level ones
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    for name in _PASSED_OVER:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_starter, daemon=True).start()
    return importlib.import_module(module).run_training_entry(command_line[1:])


def _end_with_starter() -> None:
    while os.read(_STDIN, 1):
        pass
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

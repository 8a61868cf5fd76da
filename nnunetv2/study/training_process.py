"""A training command in a process that ends, with all processes it started, when the one that started it does.

    python training_process.py MODULE PROGRAM WORD ...

runs the training command PROGRAM, which is in MODULE. The starter holds the other end of the standard input, makes this
process the leader of a group of its own, and writes nothing. When it ends, even by SIGKILL, the input ends.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path

_STDIN = 0
_PASSED_OVER = ("SIGUSR1", "SIGUSR2")  # Slurm sends one to every process of a job; submitit answers it


def main() -> int:
    """Carries out the command; returns its exit code."""
    module, *command_line = sys.argv[1:]
    sys.argv = command_line
    sys.path[:1] = []  # the folder of this file, whose modules are no top-level ones
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

"""Run one training of a study in its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from dinov3.utils.folder_lock import locked_folder
from nnunetv2.errors import LockedError, PreemptedError
from nnunetv2.study import training_process
from nnunetv2.study.jobs import Job, State

_SECONDS_TO_STOP = 60  # for the running step and a checkpoint
_POLL_SECONDS = 0.1
_TAIL_BYTES = 20_000
_LONGEST_REASON = 300  # characters


RESUME = "The same command resumes it from its last checkpoint"


@dataclass(frozen=True)
class Outcome:
    """Result of a training."""

    job: Job
    state: State
    reason: str = ""
    """why it is unfinished; empty otherwise"""

    @property
    def is_finished(self) -> bool:
        return self.state is State.DONE


def run_job(job: Job, *, wait: bool = False) -> Outcome | None:
    """Train and validate, resuming from the state found on disk.

    Args:
        wait: block while another process trains this fold.

    Returns:
        The outcome; None if another process trains the fold and `wait` is False.

    Raises:
        PreemptedError: a signal ended the training.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(job.lock, "training", wait=wait))
            if wait and job.fold_folder.is_dir():
                with locked_folder(job.fold_folder, "training", wait=True):
                    pass  # a training that was started by hand
        except LockedError:
            return None
        state = job.state()
        if state is State.DONE:
            return Outcome(job, state)
        exit_code = _train(job, state)
        reached = job.state()
        if exit_code == PreemptedError.exit_code:
            raise PreemptedError(f"A signal ended the training {job.name}, which is saved. {RESUME}")
        if exit_code == LockedError.exit_code and not wait:
            return None
        return Outcome(job, reached, "" if reached is State.DONE else _reason(job, exit_code))


def _train(job: Job, state: State) -> int:
    """Run the training command; return its exit code, negative if ended by a signal."""
    for folder in (job.results, job.log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, training_process.__file__, job.module, job.program, *job.command_words(state)]
    with open(job.log, "ab") as log:
        log.write(f"\n{datetime.now():%Y-%m-%d %H:%M:%S} $ {job.command_line(state)}\n".encode())
        log.flush()
        return _run(command, job, log)


def _run(command: list[str], job: Job, log: BinaryIO) -> int:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # stays open: see training_process
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=job.working_folder,
        env=job.full_environment(),
        start_new_session=True,
    )
    try:
        return process.wait()
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """Terminate the training and its child processes, killing them if they do not stop in time."""
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_STOP
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    # Also after a normal end: children may outlive the leader of the group.
    _signal_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    process.stdin.close()


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _reason(job: Job, exit_code: int) -> str:
    """Summarise in one line: the error in the log, or how the process ended."""
    with open(job.log, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    if exit_code < 0:
        name = next((each.name for each in signal.Signals if each == -exit_code), f"number {-exit_code}")
        hint = ", mostly for lack of memory" if name == "SIGKILL" else ""
        return f"ended by signal {name}{hint}"
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"ended with exit code {exit_code}"])[-1][:_LONGEST_REASON]

"""Trainings in processes of their own, which tests signal and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.processes import LONGEST_WAIT, is_alive, wait_until

TRAINERS = """
import os, time
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class FaultTrainer(nnUNetTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch, save_every = 4, 3, 2, 100

    def train_step(self, batch):
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
        return super().train_step(batch)

class OwnLoopTrainer(FaultTrainer):
    def run_training(self):
        self.on_train_start()
        self.print_to_log_file("own loop")
        time.sleep(600)
"""


@dataclass
class Training:
    """A running training command and its files."""

    process: subprocess.Popen
    errors: Path
    fold: Path

    def lines(self) -> str:
        """Content of its text logs."""
        return "".join(path.read_text() for path in sorted(self.fold.glob("training_log_*")))

    def wait_for(self, text: str) -> None:
        """Waits until the log has a text."""
        wait_until(lambda: text in self.lines() or self.process.poll() is not None, f"no {text!r} in the log")
        assert self.process.poll() is None, f"ended too early: {self.errors.read_text()}"

    def children(self) -> list[psutil.Process]:
        """All processes below it, apart from Python's resource tracker."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if is_alive(child.pid) and not _is_resource_tracker(child)]

    def workers(self) -> list[psutil.Process]:
        """Its augmentation workers, which are forked and therefore have its command line."""
        words = psutil.Process(self.process.pid).cmdline()
        return [child for child in self.children() if child.cmdline() == words]

    def exit_code(self, seconds: float = LONGEST_WAIT) -> int:
        """Waits for its end; a training that goes on fails the test with its logs and the stacks of its threads."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            children = [(child.pid, child.status(), child.cmdline()[-3:]) for child in self.children()]
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(seconds)
            texts = (self.lines()[-2000:], self.errors.read_text())
            pytest.fail("\n".join((f"still running after {seconds} s; children: {children}", *texts)))

    def end(self, *numbers: signal.Signals) -> tuple[int, str]:
        """Sends signals, waits; returns exit code and stderr. No child may be alive a few seconds later."""
        children = self.children()
        for number in numbers:
            self.process.send_signal(number)
        code = self.exit_code()
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert not [child for child in alive if is_alive(child.pid)], "children outlived the training"
        return code, self.errors.read_text()


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return True


@contextmanager
def training(
    fold: Path, *words: str, launcher: tuple[str, ...] = (), name: str = "errors.txt", **environment: str
) -> Iterator[Training]:
    """Runs `nnUNetv2_train` with these words."""
    start = "import sys; from nnunetv2.run.run_training import run_training_entry; sys.exit(run_training_entry())"
    command = [sys.executable, *(launcher or ("-c", start)), *words]
    errors = fold.parents[3] / name
    variables = {**os.environ, "PYTHONFAULTHANDLER": "1", **environment}
    with open(errors, "w") as stderr:
        process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=stderr)
    running = Training(process, errors, fold)
    try:
        yield running
    finally:
        children = running.children() if process.poll() is None else []
        process.kill()
        process.wait()
        for child in children:
            if child.is_running():
                child.kill()

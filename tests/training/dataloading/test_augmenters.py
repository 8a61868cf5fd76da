"""Batches from background workers: random numbers, failures, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.training.dataloading.augmenters import (
    AugmentationWorkerDied,
    OrderedWorkerAugmenter,
    WorkerAugmenter,
    make_augmenter,
    worker_seeds,
)
from nnunetv2.training.dataloading.random_streams import TRAINING_STREAM, SampleStreams
from tests.processes import is_alive, wait_until

REPOSITORY = Path(__file__).resolve().parents[3]


class _Draws:
    """A loader whose batches tell the worker and its first random numbers."""

    streams: SampleStreams | None = None

    def set_thread_id(self, thread_id: int) -> None:
        self.worker = thread_id

    def __next__(self) -> dict:
        time.sleep(0.01)  # leaves the other worker a chance
        return {"worker": self.worker, "torch": torch.rand(1).item(), "numpy": np.random.uniform(), "pid": os.getpid()}


class _Ordered(_Draws):
    """Has its batches in order; worker 0 is the slowest."""

    streams = SampleStreams(0, TRAINING_STREAM, 0, 0)

    def __next__(self) -> dict:
        time.sleep(0.05 if self.worker == 0 else 0)
        return super().__next__()


class _Failing(_Draws):
    def __init__(self, error: Exception, streams: SampleStreams | None) -> None:
        self.error, self.streams = error, streams

    def __next__(self) -> dict:
        raise self.error


both_kinds = pytest.mark.parametrize("streams", [None, _Ordered.streams], ids=["any order", "in order"])


@pytest.fixture
def started():
    """Makes augmenters and stops them at the end of the test."""
    augmenters = []

    def make(*args, **kwargs):
        augmenters.append(make_augmenter(*args, **kwargs))
        return augmenters[-1]

    yield make
    for augmenter in augmenters:
        augmenter._finish(timeout=1)


def _first_draws(augmenter) -> dict[int, dict]:
    """The first batch of each of two workers."""
    first: dict[int, dict] = {}
    while len(first) < 2:
        batch = next(augmenter)
        first.setdefault(batch["worker"], batch)
    return first


def test_workers_draw_different_numbers(started):
    first = _first_draws(started(_Draws(), 2))
    assert first[0]["torch"] != first[1]["torch"]
    assert first[0]["numpy"] != first[1]["numpy"]


def test_worker_seeds_differ_between_workers_and_runs():
    seeds = [*worker_seeds(8), *worker_seeds(8)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_without_workers_batches_come_from_this_process(seeded):
    loader = _Draws()
    loader.set_thread_id(0)
    batch = next(make_augmenter(loader, 0))
    torch.manual_seed(seeded)
    assert batch["pid"] == os.getpid()
    assert batch["torch"] == torch.rand(1).item()


def test_only_batches_with_numbers_wait_for_their_turn(started):
    assert isinstance(started(_Draws(), 2), WorkerAugmenter)
    augmenter = started(_Ordered(), 3)
    assert isinstance(augmenter, OrderedWorkerAugmenter)
    assert [next(augmenter)["worker"] for _ in range(9)] == [0, 1, 2] * 3


@both_kinds
def test_bad_data_in_a_worker_is_told_as_such(started, streams):
    with pytest.raises(DataError, match="case_3.b2nd cannot be read"):
        next(started(_Failing(DataError("case_3.b2nd cannot be read"), streams), 1))


@both_kinds
def test_a_defect_in_a_worker_comes_with_its_traceback(started, streams):
    with pytest.raises(RuntimeError, match=r"KeyError\('seg'\)(.|\n)*test_augmenters.py.*in __next__"):
        next(started(_Failing(KeyError("seg"), streams), 1))


@both_kinds
def test_no_worker_is_left_after_a_failure(started, streams):
    augmenter = started(_Failing(DataError("bad"), streams), 2)
    with pytest.raises(DataError):
        next(augmenter)
    assert not [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # raised by batchgenerators too
@pytest.mark.parametrize("loader", [_Draws(), _Ordered()], ids=["any order", "in order"])
def test_a_killed_worker_is_explained(started, loader):
    augmenter = started(loader, 2)
    victim = next(augmenter)["pid"]
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(
        AugmentationWorkerDied, match=r"worker died \(signal 9\).*too little memory.*/dev/shm.*ulimit -n"
    ):
        for _ in range(1000):
            next(augmenter)


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["_Draws", "_Ordered"])
def test_workers_end_when_their_parent_is_killed(loader):
    script = (
        "import os, signal\n"
        f"from tests.training.dataloading.test_augmenters import {loader}\n"
        "from nnunetv2.training.dataloading.augmenters import make_augmenter\n"
        f"augmenter = make_augmenter({loader}(), 2)\n"
        "next(augmenter)\n"
        "print(*[worker.pid for worker in augmenter._processes], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    workers = [int(pid) for pid in ended.stdout.split()]
    assert len(workers) == 2, ended.stderr
    wait_until(lambda: not any(map(is_alive, workers)), "the workers outlived their parent")

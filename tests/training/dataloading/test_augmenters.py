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
from nnunetv2.training.dataloading import batches, data_loader
from nnunetv2.training.dataloading.augmenters import (
    AugmentationWorkerDied,
    Restarts,
    has_random_workers,
    make_augmenter,
)
from nnunetv2.training.dataloading.random_streams import TRAINING_STREAM, SampleStreams
from tests.processes import is_alive, wait_until

REPOSITORY = Path(__file__).resolve().parents[3]


class _Draws:
    """A loader whose batches tell the worker and its first random numbers."""

    streams: SampleStreams | None = None
    next_batch = 0

    def set_thread_id(self, thread_id: int) -> None:
        self.worker = thread_id

    def __next__(self) -> dict:
        time.sleep(0.01)  # leaves the other worker a chance
        draws = {"torch": torch.rand(1).item(), "numpy": np.random.uniform()}
        return {"worker": self.worker, "number": self.next_batch, "pid": os.getpid(), **draws}


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


def test_without_workers_batches_come_from_this_process(seeded):
    loader = _Draws()
    loader.set_thread_id(0)
    batch = next(make_augmenter(loader, 0))
    torch.manual_seed(seeded)
    assert batch["pid"] == os.getpid()
    assert batch["torch"] == torch.rand(1).item()


def test_only_batches_with_numbers_wait_for_their_turn(started):
    assert has_random_workers(started(_Draws(), 2))
    augmenter = started(_Ordered(), 3)
    assert not has_random_workers(augmenter)
    batches = [next(augmenter) for _ in range(40)]
    assert [batch["number"] for batch in batches] == list(range(40))
    made = np.bincount([batch["worker"] for batch in batches], minlength=3)
    assert 0 < made[0] < made[1:].min()  # the others do not wait for the slow one


@both_kinds
def test_bad_data_in_a_worker_is_told_as_such(started, streams):
    with pytest.raises(DataError, match="case_3.b2nd cannot be read"):
        next(started(_Failing(DataError("case_3.b2nd cannot be read"), streams), 1))


@both_kinds
def test_a_defect_in_a_worker_comes_with_its_traceback(started, streams):
    with pytest.raises(RuntimeError, match=r"KeyError\('seg'\)(.|\n)*test_augmenters.py.*in __next__"):
        next(started(_Failing(KeyError("seg"), streams), 1))


def _children() -> set[psutil.Process]:
    children = psutil.Process().children()
    return {child for child in children if is_alive(child.pid) and "resource_tracker" not in " ".join(child.cmdline())}


@both_kinds
def test_no_worker_is_left_after_a_failure(started, streams):
    before = _children()
    augmenter = started(_Failing(DataError("bad"), streams), 2)
    with pytest.raises(DataError):
        next(augmenter)
    assert not _children() - before


def test_no_worker_of_training_is_left_when_validation_cannot_start(monkeypatch: pytest.MonkeyPatch):
    before = _children()
    loaders = iter([_Draws(), _Failing(DataError("bad"), None)])
    monkeypatch.setattr(data_loader, "nnUNetDataLoader", lambda *args, **kwargs: next(loaders))
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    drawing = batches.Drawing(2, (4, 4), None, 0.33, False)
    with pytest.raises(DataError, match="bad"):
        batches.start((None, None), (None, None), (None, None), drawing, pin_memory=False)
    assert not _children() - before


def test_without_order_a_late_batch_is_not_waited_for(started):
    augmenter = started(_Ordered(), 2, keep_order=False)
    numbers = [next(augmenter)["number"] for _ in range(30)]
    assert numbers[0] == 0
    assert len(set(numbers)) == 30
    assert augmenter.num_out_of_order > 0
    assert numbers != sorted(numbers)


def test_without_order_batches_are_in_order_if_they_are_early(started):
    augmenter = started(_Draws(), 1, keep_order=False)
    assert [next(augmenter)["number"] for _ in range(10)] == list(range(10))
    assert augmenter.num_out_of_order == 0


class _Killed(_Ordered):
    """Whoever makes batch 4 is killed while it reads a case, as often as a file has bytes."""

    note_case = None

    def __init__(self, lives: Path) -> None:
        self.lives = lives

    def __next__(self) -> dict:
        if self.next_batch == 4 and self.lives.stat().st_size:
            self.note_case("case_7")
            os.truncate(self.lives, self.lives.stat().st_size - 1)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"number": self.next_batch, "torch": torch.full((2, 3), self.next_batch)}


def test_a_killed_worker_is_replaced_and_its_batches_are_made(started, tmp_path, caplog):
    lives = tmp_path / "lives"
    lives.write_bytes(bytes(3))
    batches = [next(augmenter) for augmenter in [started(_Killed(lives), 2)] for _ in range(12)]
    assert [batch["number"] for batch in batches] == list(range(12))
    assert all((batch["torch"] == batch["number"]).all() for batch in batches)
    assert lives.stat().st_size == 0
    assert [record.getMessage() for record in caplog.records] == [
        "A data augmentation worker died (signal 9, most likely no memory was left) while it read case case_7; "
        f"a new one repeats its work ({number} of 3 restarts)"
        for number in (1, 2, 3)
    ]


def test_a_worker_that_dies_again_and_again_is_explained(started, tmp_path):
    lives = tmp_path / "lives"
    lives.write_bytes(bytes(9))
    augmenter = started(_Killed(lives), 2)
    with pytest.raises(
        AugmentationWorkerDied,
        match=r"worker died \(signal 9, .* case case_7, the last of 4 .*too little memory.*/dev/shm.*ulimit -n",
    ):
        [next(augmenter) for _ in range(6)]
    assert augmenter.process_ids() == []


def test_workers_in_any_order_are_replaced_too(started):
    augmenter = started(_Draws(), 1)
    first = next(augmenter)["pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: next(augmenter)["pid"] != first)


def test_deaths_of_long_ago_are_forgotten():
    assert [Restarts(seconds=3600).take() for _ in range(2)] == [1, 1]
    often, rarely = Restarts(seconds=3600), Restarts(seconds=0)
    assert [often.take() for _ in range(3)] == [1, 2, 3]
    assert [rarely.take() for _ in range(3)] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["_Draws", "_Ordered"])
def test_workers_end_when_their_parent_is_killed(loader):
    script = (
        "import os, signal\n"
        f"from tests.training.dataloading.test_augmenters import {loader}\n"
        "from nnunetv2.training.dataloading.augmenters import make_augmenter\n"
        f"augmenter = make_augmenter({loader}(), 2)\n"
        "next(augmenter)\n"
        "print(*augmenter.process_ids(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    workers = [int(pid) for pid in ended.stdout.split()]
    assert len(workers) == 2, ended.stderr
    wait_until(lambda: not any(map(is_alive, workers)), "the workers outlived their parent")

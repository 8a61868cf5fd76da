"""Which processes a command runs in, and what is refused."""

from __future__ import annotations

import logging

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.utilities.processes import command_processes
from nnunetv2.utilities.processes.command_processes import Group, log_the_first_process_only, run_in_processes

CPU, CUDA, MPS = (Group(device, advice="") for device in ("cpu", "cuda", "mps"))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(variable, raising=False)


def test_one_process_is_this_one() -> None:
    calls: list[int] = []
    run_in_processes(calls.append, (3,), 1, CPU)
    assert calls == [3]


@pytest.mark.parametrize(
    ("group", "num_gpus", "world_size", "message"),
    [
        (CPU, 2, "4", "torchrun has started 4 processes already; leave out -num_gpus 2"),
        (CPU, 0, "1", "-num_gpus is 0; it must be at least 1"),
        (MPS, 2, "1", "mps is for one process"),
        (MPS, 1, "2", "mps is for one process"),
        (CUDA, 3, "1", "-num_gpus is 3 and this machine shows 2 GPUs"),
        (CPU, 1, "two", "WORLD_SIZE=two.*is no number"),
    ],
)
def test_what_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, group: Group, num_gpus: int, world_size: str, message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=message):
        run_in_processes(pytest.fail, ("called",), num_gpus, group)


@pytest.mark.parametrize(("rank", "level"), [("0", logging.INFO), ("1", logging.WARNING)])
def test_only_the_first_process_logs(monkeypatch: pytest.MonkeyPatch, rank: str, level: int) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.INFO)
    monkeypatch.setenv("RANK", rank)
    log_the_first_process_only()
    assert root.level == level


def test_independent_tasks_of_slurm_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(command_processes, "run_in_processes", lambda *args: None)
    training = (pytest.fail, ("called",))
    command_processes.train_in_processes(*training, 1, "cpu")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    command_processes.train_in_processes(*training, 2, "cpu")  # one task with -num_gpus, or so the user meant
    assert not caplog.records
    command_processes.train_in_processes(*training, 1, "cpu")
    assert "srun runs this command 4 times, and each trains on its own" in caplog.text

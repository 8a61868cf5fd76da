"""Joining the processes that torchrun started."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import distributed

from dinov3.utils.errors import ConnectionLostError, DataError, UsageError
from dinov3.utils.processes import process_group
from dinov3.utils.processes.process_group import device_of_this_process, is_distributed, process_group_from_environment


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch):
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("world_size", [None, "1"])
def test_one_process_stays_alone(monkeypatch, world_size):
    if world_size:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    with process_group_from_environment(torch.device("cpu")):
        assert not is_distributed()


@pytest.mark.parametrize("world_size", ["2", "two"])
def test_variables_that_describe_no_group_are_refused(monkeypatch, world_size):
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with (
        pytest.raises(
            UsageError, match=f"WORLD_SIZE={world_size}, but the processes cannot be joined: .*torchrun"
        ) as caught,
        process_group_from_environment(torch.device("cpu")),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_fewer_gpus_than_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(UsageError, match="This machine has 2 processes and 1 GPUs; .*--nproc_per_node=1"),
        process_group_from_environment(torch.device("cuda")),
    ):
        pass


def test_a_process_has_the_gpu_of_its_number_on_its_machine(monkeypatch):
    assert device_of_this_process(torch.device("cuda")) == torch.device("cuda", 0)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 5)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 8)
    assert device_of_this_process(torch.device("cuda")) == torch.device("cuda", 5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_this_process(torch.device("cuda")) == torch.device("cuda", 1)
    assert device_of_this_process(torch.device("cpu")) == torch.device("cpu")


class _Store:
    """Counts, as the store that all processes share does."""

    value = 0

    def add(self, key, amount):
        self.value += amount
        return self.value


GLOO = RuntimeError("[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:23753")


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        (DataError("damaged"), (DataError, "damaged"), (SystemExit, "3")),
        (GLOO, (ConnectionLostError, "^lost the connection to another process, which has ended$"), (SystemExit, "1")),
        (distributed.DistBackendError("NCCL error"), (ConnectionLostError, r"ended \(NCCL error\)"), (SystemExit, "1")),
        (KeyError("bug"), (KeyError, "bug"), (KeyError, "bug")),
    ],
)
def test_the_first_process_that_fails_says_why(monkeypatch, given, first, second):
    monkeypatch.setenv("WORLD_SIZE", "2")
    store = _Store()
    monkeypatch.setattr(process_group, "_join", lambda *args: store)
    for error, message in (first, second):
        with pytest.raises(error, match=message), process_group_from_environment(torch.device("cpu")):
            raise given


@pytest.mark.slow
@pytest.mark.integration
def test_a_process_that_fails_ends_the_job(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            """
            import torch
            from dinov3.utils.processes.process_group import process_group_from_environment
            from dinov3.utils.processes.process_group import rank_and_world_size, wait_for_all

            with process_group_from_environment(torch.device("cpu")):
                if rank_and_world_size() == (1, 2):
                    raise ValueError("broken")
                wait_for_all()
            """
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "ValueError: broken" in result.stderr

"""Work in other processes, and in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.utilities.processes.worker_pool import BackgroundWorkerError, WorkerPool, result_of
from tests.processes import is_alive, wait_until


def process_id() -> int:
    return os.getpid()


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(message: str) -> None:
    raise ValueError(message)


def test_no_processes_means_this_one() -> None:
    with WorkerPool(0) as pool:
        assert pool.capacity == 1
        assert result_of(pool.submit(process_id)) == os.getpid()
        with pytest.raises(ValueError, match="broken"):
            result_of(pool.submit(fail, "broken"))


def test_negative_number_of_processes() -> None:
    with pytest.raises(UsageError, match="number of processes is -1"):
        WorkerPool(-1)


@pytest.mark.slow
def test_results_errors_and_death_of_workers() -> None:
    with WorkerPool(1, num_waiting=1) as pool:
        futures = [pool.submit(process_id) for _ in range(4)]
        assert len({result_of(future) for future in futures} - {os.getpid()}) == 1
        with pytest.raises(ValueError, match="broken"):
            result_of(pool.submit(fail, "broken"))
        with pytest.raises(BackgroundWorkerError, match="memory ran out"):
            result_of(pool.submit(kill_this_process))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, time
            from nnunetv2.utilities.processes.worker_pool import WorkerPool
            if __name__ == "__main__":
                pool = WorkerPool(1)
                print(pool.submit(os.getpid).result(), flush=True)
                time.sleep(60)
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not is_alive(worker), "the worker outlived its parent")

"""Starting processes, and what is said when one of them fails. The processes import nothing heavy."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from dinov3.utils.errors import ConnectionLostError, DataError, ProcessDiedError
from dinov3.utils.processes.launch import launch

pytestmark = [pytest.mark.slow, pytest.mark.integration]

ADVICE = "Go on with --c"
NOTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _one_thread_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def _note(folder: Path) -> None:
    Path(folder, os.environ["RANK"]).write_text(" ".join(os.environ[name] for name in NOTED))


def _fail(folder: Path, kind: str) -> None:
    """Process 1 fails as `kind` says, process 0 goes on for long unless that ends it."""
    if os.environ["RANK"] == "0":
        _wait_for(Path(folder, "failing"))
        if kind == "consequence":
            raise ConnectionLostError("lost the connection")
        time.sleep(3 if kind == "others finish" else 60)
        Path(folder, "finished").touch()
        return
    Path(folder, "failing").touch()
    if kind in ("killed", "others finish"):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "consequence":
        time.sleep(1)
        os._exit(7)
    raise DataError("case 7 is damaged") if kind == "user" else KeyError("oops")


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def test_environment_describes_the_group_as_torchrun_does(tmp_path: Path) -> None:
    launch(_note, (tmp_path,), 2, advice=ADVICE)
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert (first[:5], second[:5]) == (["0", "0", "2", "2", "localhost"], ["1", "1", "2", "2", "localhost"])
    assert first[5] == second[5]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("user", DataError, "^case 7 is damaged$"),
        (
            "bug",
            ProcessDiedError,
            r"^Process 1 of 2 \(the first is 0\) met KeyError \('oops'\), its traceback is above",
        ),
        (
            "killed",
            ProcessDiedError,
            "^Process 1 of 2 .*was killed by signal SIGKILL.*others were stopped. Go on with --c",
        ),
        ("consequence", ProcessDiedError, "^Process 1 of 2 .* ended with exit code 7; the others were stopped"),
    ],
)
def test_failing_process_ends_the_others_and_is_named(
    tmp_path: Path, kind: str, error: type[Exception], message: str
) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=message):
        launch(_fail, (tmp_path, kind), 2, advice=ADVICE)
    assert time.monotonic() - started < 30
    assert not (tmp_path / "finished").exists()


def test_others_may_finish(tmp_path: Path) -> None:
    with pytest.raises(ProcessDiedError, match="Process 1 of 2 .* SIGKILL.*; the others have finished"):
        launch(_fail, (tmp_path, "others finish"), 2, advice=ADVICE, others_finish=True)
    assert (tmp_path / "finished").exists()

"""One writer per folder; locks of ended processes do not stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dinov3.utils.errors import LockedError
from dinov3.utils.folder_lock import LOCK_FILE, SILENCE_OF_THE_DEAD, locked_folder
from tests.processes import wait_until

HOLD = """
import sys, time
from dinov3.utils.folder_lock import locked_folder
with locked_folder(sys.argv[1], "training"):
    print("locked", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_and_told_by_whom(holder: subprocess.Popen, tmp_path: Path) -> None:
    message = rf"process {holder.pid} on .*, since .* is training in .*--force"
    with pytest.raises(LockedError, match=message) as caught, locked_folder(tmp_path, "training"):
        pass
    assert caught.value.exit_code == 6


def test_the_lock_of_a_killed_process_is_taken_over(holder: subprocess.Popen, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked_folder(tmp_path, "training"):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_force_takes_the_lock(holder: subprocess.Popen, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked_folder(tmp_path, "training", force=True):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert f"process {holder.pid}" in caplog.text


def test_waiting_ends_with_the_holder(holder: subprocess.Popen, tmp_path: Path) -> None:
    waiting = HOLD.replace('"training"', '"training", wait=True').replace("time.sleep(100)", "pass")
    second = subprocess.Popen([sys.executable, "-c", waiting, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    assert second.poll() is None
    holder.kill()
    assert wait_until(lambda: second.poll() is not None)
    assert second.stdout.read() == "locked\n"
    assert second.returncode == 0


def test_the_same_process_locks_a_folder_once(tmp_path: Path) -> None:
    with locked_folder(tmp_path, "training"):
        with pytest.raises(LockedError, match="already training"), locked_folder(tmp_path, "training"):
            pass
        with pytest.raises(LockedError), locked_folder(tmp_path, "training"):  # the refusal did not release the lock
            pass
    with locked_folder(tmp_path, "training"):
        pass


@pytest.mark.parametrize("silence, is_held", [(1, True), (SILENCE_OF_THE_DEAD + 5, False)])
def test_a_lock_of_another_host_ages(tmp_path: Path, silence: int, is_held: bool) -> None:
    lock = tmp_path / LOCK_FILE
    lock.write_text(json.dumps({"host": "another", "pid": os.getpid(), "start": "2026-01-01 00:00:00"}))
    last_sign = time.time() - silence
    os.utime(lock, (last_sign, last_sign))
    if is_held:
        with pytest.raises(LockedError, match="on another, since 2026"), locked_folder(tmp_path, "training"):
            pass
    else:
        with locked_folder(tmp_path, "training"):
            pass


def test_a_locked_folder_that_lacks_system_locks_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with locked_folder(tmp_path, "training"):
        assert (tmp_path / LOCK_FILE).read_text()

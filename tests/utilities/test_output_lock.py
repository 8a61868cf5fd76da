from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from nnunetv2.errors import LockedError
from nnunetv2.utilities.processes.output_lock import LOCK_FILE, locked_output


def test_the_second_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with locked_output(tmp_path, "predicting"):
        for shared in (False, True):
            with (
                pytest.raises(LockedError, match=r"is in use: Process \d+ on .* is predicting since 20"),
                locked_output(tmp_path, "evaluating", shared=shared),
            ):
                pass
    with locked_output(tmp_path, "evaluating"):
        pass


def test_those_who_share_exclude_only_others(tmp_path: Path) -> None:
    with locked_output(tmp_path, "predicting", shared=True):
        with locked_output(tmp_path, "predicting", shared=True):
            pass
        with pytest.raises(LockedError), locked_output(tmp_path, "evaluating"):
            pass
        assert (tmp_path / LOCK_FILE).exists()
    with locked_output(tmp_path, "evaluating"):
        pass


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with locked_output(folder, "predicting"):
        assert [path.name for path in folder.iterdir()] == [LOCK_FILE]
    assert not folder.exists()
    with locked_output(folder, "predicting"):
        (folder / "a").touch()
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_files_of_killed_writers_are_removed_by_one_who_is_alone(tmp_path: Path) -> None:
    leftover = tmp_path / ".0123abcd.tmp.file.nii.gz"
    leftover.touch()
    with locked_output(tmp_path, "predicting", shared=True):
        assert leftover.exists()
    with locked_output(tmp_path, "predicting"):
        assert not leftover.exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(tmp_path, there))
    process.start()
    assert here.recv() == "locked"
    with pytest.raises(LockedError, match=f"Process {process.pid} "), locked_output(tmp_path, "predicting"):
        pass
    process.kill()
    process.join()
    with locked_output(tmp_path, "predicting"):
        pass
    assert list(tmp_path.iterdir()) == []


def _hold(folder: Path, connection: Connection) -> None:
    with locked_output(folder, "predicting"):
        connection.send("locked")
        connection.recv()

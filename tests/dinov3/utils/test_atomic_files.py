from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dinov3.utils import atomic_files
from dinov3.utils.atomic_files import (
    create_json,
    read_json,
    remove_interrupted_writes,
    replace_folder_when_complete,
    replace_when_complete,
    without_nonfinite,
    write_json,
)
from dinov3.utils.errors import DataError


def test_a_finished_file_takes_the_place_of_the_target(tmp_path: Path) -> None:
    target = tmp_path / "case.nii.gz"
    target.write_text("old")
    with replace_when_complete(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "plans.json"
    target.write_text("old")

    def write_half_then_fail() -> None:
        with replace_when_complete(target) as temporary:
            temporary.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half_then_fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("case.nii.nii.gz", ".nii.gz"),  # ITK would drop the second of two NIfTI endings
        ("v1.2 (final).nii.gz", ".nii.gz"),
        ("x" * 240 + ".npz", ".npz"),
        ("a.ome.tif", ".ome.tif"),
        ("slice 3. of the second series.tif", ".tif"),
        ("no ending. " + "x" * 200, ""),
        ("postprocessed", ""),
    ],
)
def test_temporary_names_are_short_and_keep_the_ending(name: str, ending: str, tmp_path: Path) -> None:
    with replace_when_complete(tmp_path / name) as temporary:
        assert temporary.name.partition(".tmp.file")[2] == ending
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_writer_that_adds_an_ending_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with replace_when_complete(tmp_path / "case") as temporary:
            Path(f"{temporary}.npy").touch()

    with pytest.raises(FileNotFoundError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    with replace_when_complete(tmp_path / "checkpoint_latest.pth") as temporary:
        temporary.touch()
        young = temporary.name
        kept = [tmp_path / name for name in (young, ".DS_Store", ".notes.tmp.txt", "a.tmp.b")]
        old = tmp_path / ".0123abcd.tmp.checkpoint_latest.pth"
        two_hours_ago = time.time() - 7200
        for path in [*kept[1:], old]:
            path.touch()
            os.utime(path, (two_hours_ago, two_hours_ago))
        remove_interrupted_writes(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_write_that_is_finished_while_leftovers_are_looked_for_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = tmp_path / ".0123abcd.tmp.plans.json"
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [renamed])
    remove_interrupted_writes(tmp_path)


def test_json_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_cannot_express_become_none_at_any_depth() -> None:
    values = {"loss": float("nan"), "bounds": (1.5, float("-inf")), "classes": [{"IoU": float("inf"), "class": 2}]}
    assert without_nonfinite(values) == {"loss": None, "bounds": [1.5, None], "classes": [{"IoU": None, "class": 2}]}


def test_json_round_trip_and_the_message_for_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json({"b": [1, 2.5, None]}, path)
    assert read_json(path) == {"b": [1, 2.5, None]}
    path.write_text('{"b": 1,\n "c" 2}')
    with pytest.raises(DataError, match=r"a\.json is not valid JSON \(line 2"):
        read_json(path)


def test_a_folder_is_replaced_only_when_its_successor_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "cases"
    target.mkdir()
    (target / "old").touch()

    def write_half_then_fail() -> None:
        with replace_folder_when_complete(target) as temporary:
            assert list(temporary.iterdir()) == []
            (temporary / "half").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half_then_fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["cases", "old"]

    with replace_folder_when_complete(target) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["cases", "new"]


def test_concurrent_replacements_do_not_interfere(tmp_path: Path) -> None:
    target = tmp_path / "cases"
    with replace_folder_when_complete(target) as first:
        (first / "a").touch()
        with replace_folder_when_complete(target) as second:
            assert first != second
            (second / "b").touch()
        assert [path.name for path in target.iterdir()] == ["b"]
        assert first.is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["cases", "a"]


def test_folders_of_killed_processes_are_removed_and_those_of_others_kept(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host = atomic_files._host()
    kinds = {
        f".cases.{ended.stdout.strip()}.{host}.00000001.incomplete": False,
        f".cases.{ended.stdout.strip()}.{host}.00000001.replaced": False,
        f".cases.{os.getppid()}.{host}.00000001.incomplete": True,
        f".cases.{ended.stdout.strip()}.0{host}.00000001.incomplete": True,  # another host, less than an hour ago
        f".other.{ended.stdout.strip()}.{host}.00000001.incomplete": True,
    }
    for name in kinds:
        (tmp_path / name / "imagesTr").mkdir(parents=True)
    abandoned = tmp_path / ".cases.1.0.00000001.incomplete"  # another host, more than an hour ago
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    with replace_folder_when_complete(tmp_path / "cases"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [n for n, kept in kinds.items() if kept] + ["cases"]
    )


def test_one_of_several_creates_a_file(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    assert create_json([1], path)
    assert not create_json([2], path)
    assert read_json(path) == [1]
    assert [each.name for each in tmp_path.iterdir()] == ["splits.json"]


def test_a_file_is_created_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "splits.json"
    assert create_json([1], path) and not create_json([2], path)
    assert read_json(path) == [1]

"""Files of tensors: whatever changes in one is found, other programs read it, and a full disk leaves the old one."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov3.hub.checkpoint_files import read_state_dict
from dinov3.utils import tensor_files
from dinov3.utils.errors import DataError, WriteError
from dinov3.utils.tensor_files import read_tensors, require_intact, write_tensors
from tests.faults.injection import flip_bit, largest_file

CONTENT = {"weights": torch.arange(5000.0), "name": "tiny"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(CONTENT, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_comment_is_the_digest_of_the_file_before_it(path: Path) -> None:
    written = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment
        assert archive.testzip() is None
    before = written[: -len(comment) - 2] + b"\0\0"  # torch writes no comment: its length is 0
    assert comment == b"content sha256 " + hashlib.sha256(before).hexdigest().encode()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_it(path: Path, mmap: bool) -> None:
    found = torch.load(path, weights_only=False, mmap=mmap)
    assert torch.equal(found["weights"], CONTENT["weights"])
    assert found["name"] == "tiny"


def test_every_flipped_bit_is_found_or_changes_nothing(path: Path) -> None:
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    ending = len(whole) - 120  # the end record and the comment
    found = 0
    for start, end in [(0, len(whole))] * 30 + [(at, at + 1) for at in range(ending, len(whole))]:
        path.write_bytes(whole)
        flip_bit(path, generator, start=start, end=end)
        try:
            assert torch.equal(read_tensors(path)["weights"], CONTENT["weights"])
        except DataError:
            found += 1
    assert found >= 30 + 120 - len("content sha256 ")


@pytest.mark.parametrize("size", [0, 1, 2000, -1000, -100, -79, -60, -1])
def test_a_shortened_file_is_found(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"model\.pth"):
        read_tensors(path)


def test_a_file_of_another_program_is_not_questioned(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "upstream.pth")
    torch.save(CONTENT, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "tiny").write_bytes(b"x")
    for name in ("upstream.pth", "legacy.pth", "tiny"):
        require_intact(tmp_path / name)


def test_weights_of_a_backbone_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write_tensors({"weights": CONTENT["weights"]}, path)
    flip_bit(path, np.random.default_rng(1), start=2000, end=4000)
    with pytest.raises(DataError, match="is damaged"):
        read_state_dict(path)


@pytest.mark.parametrize("numbers", [100, 5_000_000])  # torch reports the failed write of large tensors in its own way
def test_a_full_disk_leaves_the_old_file(path: Path, numbers: int) -> None:
    before = path.read_bytes()
    with largest_file(numbers), pytest.raises(WriteError, match=r"model\.pth could not be written, disk full"):
        write_tensors({"weights": torch.zeros(numbers)}, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_replaced_file_is_kept(path: Path) -> None:
    kept = path.with_name("kept.pth")
    before = path.read_bytes()
    for number in (1, 2):
        write_tensors({"number": number}, path, previous=kept, keeps_previous=True)
        assert read_tensors(path) == {"number": number}
        assert number == 2 or kept.read_bytes() == before
    assert read_tensors(kept) == {"number": 1}


def test_file_systems_without_hard_links_keep_the_replaced_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    kept, before = path.with_name("kept.pth"), path.read_bytes()
    write_tensors({"number": 1}, path, previous=kept, keeps_previous=True)
    assert kept.read_bytes() == before
    assert read_tensors(path) == {"number": 1}


def test_an_older_copy_makes_room_for_the_new_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older, save = path.with_name("older.pth"), torch.save
    write_tensors({"number": 0}, older)

    def fails_while_the_older_exists(content: object, file: object) -> None:
        if older.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(tensor_files.torch, "save", fails_while_the_older_exists)
    write_tensors({"number": 1}, path, previous=older, keeps_previous=True)
    assert read_tensors(path) == {"number": 1}
    assert os.listdir(path.parent) == [path.name]

"""Row 12: damaged files of a preprocessed case are named, and a crafted one runs no code."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import pytest

from nnunetv2.errors import DataError
from nnunetv2.preprocessing.b2nd_files import StoredArray
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.dataloading.augmenters import make_augmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from tests.faults.conftest import one_line
from tests.faults.injection import flip_bit, times, truncate

AGAIN = "run nnUNetv2_preprocess for this case again"


def save_case(folder: Path, name: str = "a") -> np.ndarray:
    generator = np.random.default_rng(0)
    data = generator.standard_normal((1, 16, 32, 32)).astype(np.float32)
    seg = generator.integers(0, 2, (1, 16, 32, 32)).astype(np.int16)
    properties = {"class_locations": {1: np.argwhere(seg == 1)[:100]}}
    nnUNetDatasetBlosc2.save_case(data, seg, properties, str(folder / name), chunks=(1, 8, 16, 16), blocks=(1, 8, 8, 8))
    return data


@pytest.mark.parametrize("part", ["a.b2nd", "a_seg.b2nd"])
def test_flipped_bit_is_found_before_training_and_when_all_is_read(tmp_path: Path, part: str) -> None:
    """Only bits that no voxel depends on may change without notice: few, in the frame around the chunks."""
    save_case(tmp_path)
    dataset = nnUNetDatasetBlosc2(str(tmp_path))
    path = tmp_path / part
    before = dataset._open(str(path))[:]
    nnUNetDatasetBlosc2.unpack_dataset(str(tmp_path), num_processes=1)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    num_flips = times(40, 400)
    for check in (
        lambda: nnUNetDatasetBlosc2.unpack_dataset(str(tmp_path), num_processes=1),
        lambda: dataset["a"][0][:],
    ):
        unnoticed = 0
        for _ in range(num_flips):
            flip_bit(path, generator)
            try:
                check()
            except DataError as err:
                assert f"{path} cannot be read; {AGAIN}" in str(err)
            else:
                np.testing.assert_array_equal(dataset._open(str(path))[:], before)
                unnoticed += 1
            path.write_bytes(whole)
        assert unnoticed <= 0.1 * num_flips
        if part != "a.b2nd":
            break  # the labels are not read as a whole


def damage_chunks(path: Path) -> None:
    """Overwrites a part of the first chunk: the file opens, and the chunk cannot be decompressed."""
    content = bytearray(path.read_bytes())
    (header,) = struct.unpack_from(">i", content, 11)
    content[header + 32 : header + 96] = b"\xff" * 64  # behind the chunk's own header
    path.write_bytes(content)


def test_damaged_chunk_is_named_when_it_is_sliced(tmp_path: Path) -> None:
    save_case(tmp_path)
    damage_chunks(tmp_path / "a.b2nd")
    data = nnUNetDatasetBlosc2(str(tmp_path))["a"][0]
    with pytest.raises(DataError, match=rf"a\.b2nd cannot be read; {AGAIN}"):
        data[0, :4, :4, :4]


def test_damaged_segmentation_of_the_previous_stage_names_its_own_cure(tmp_path: Path) -> None:
    save_case(tmp_path)
    previous = tmp_path / "previous"
    previous.mkdir()
    nnUNetDatasetBlosc2.save_seg(np.ones((16, 32, 32), np.uint8), str(previous / "a"))
    damage_chunks(previous / "a.b2nd")
    with pytest.raises(DataError, match=r"previous/a\.b2nd cannot be read; run the validation \(--val\)"):
        nnUNetDatasetBlosc2(str(tmp_path), None, str(previous))["a"][2][:]


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_case_is_named_from_a_worker(tmp_path: Path, workers: int) -> None:
    save_case(tmp_path)
    damage_chunks(tmp_path / "a.b2nd")
    labels = LabelManager({"background": 0, "a": 1}, None)
    loader = nnUNetDataLoader(nnUNetDatasetBlosc2(str(tmp_path)), 1, (16, 32, 32), (16, 32, 32), labels)
    batches = make_augmenter(loader, workers)
    try:
        with pytest.raises(DataError, match=rf"a\.b2nd cannot be read; {AGAIN}"):
            next(batches)
    finally:
        if workers:
            batches._finish()


@pytest.mark.integration
@pytest.mark.parametrize("damage", ["flip", "truncate", "pickle"])
def test_training_ends_with_the_name_of_the_file(
    tiny_images: Path,
    short_training: Callable[..., None],
    run: Callable[..., tuple[int, str]],
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    path = sorted(tiny_images.rglob("*_seg.b2nd"))[0]
    if damage == "flip":
        flip_bit(path, np.random.default_rng(1), start=path.stat().st_size // 2)
    elif damage == "truncate":
        truncate(path, 0.7)
    else:
        path = path.with_name(path.name.replace("_seg.b2nd", ".pkl"))
        truncate(path, 0.5)
        monkeypatch.setattr(nnUNetDatasetBlosc2, "get_identifiers", staticmethod(lambda folder: [path.stem]))
    code, stderr = run(run_training_entry, "777", "2d", "all", "-device", "cpu")
    assert code == 3
    one_line(stderr, str(path), AGAIN)


@pytest.mark.parametrize("key", ["a.npz", "a.pkl"])
def test_damaged_archive_is_named(tmp_path: Path, key: str) -> None:
    data = np.random.default_rng(0).standard_normal((1, 8, 8, 8)).astype(np.float32)
    nnUNetDatasetNumpy.save_case(data, data.astype(np.int16), {"spacing": [1.0]}, str(tmp_path / "a"))
    content = bytearray((tmp_path / key).read_bytes())
    content[len(content) // 2 :] = b""
    (tmp_path / key).write_bytes(content)
    with pytest.raises(DataError, match=rf"{key} cannot be read|{key}"):
        nnUNetDatasetNumpy(str(tmp_path))["a"]


def test_files_of_other_versions_have_no_checksum(tmp_path: Path) -> None:
    data = save_case(tmp_path)
    (tmp_path / "a.b2nd").unlink()
    blosc2.asarray(data, urlpath=str(tmp_path / "a.b2nd"), chunks=(1, 8, 16, 16), blocks=(1, 8, 8, 8))
    nnUNetDatasetBlosc2.unpack_dataset(str(tmp_path), num_processes=1)
    np.testing.assert_array_equal(nnUNetDatasetBlosc2(str(tmp_path))["a"][0][:], data)


def test_verification_can_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_case(tmp_path)
    damage_chunks(tmp_path / "a.b2nd")
    monkeypatch.setenv("nnUNet_verify_stored_cases", "0")
    nnUNetDatasetBlosc2.unpack_dataset(str(tmp_path), num_processes=1)


def lazy_array(path: Path, marker: Path) -> None:
    """An array that blosc2 4.0.0 makes by running the text of a function when the file is opened."""
    source = f"def f(x):\n    import os\n    os.mkdir({str(marker)!r})\n    return x"
    meta = {"LazyArray": 1}
    array = blosc2.asarray(np.zeros((4, 4)), urlpath=str(path), meta=meta)
    array.schunk.vlmeta["_LazyArray"] = {"UDF": source, "operands": {}, "name": "f"}


def proxy_array(path: Path, marker: Path) -> None:
    meta = {"proxy-source": {"urlpath": ["root", "http://localhost:1", None], "local_abspath": None}}
    blosc2.asarray(np.zeros((4, 4)), urlpath=str(path), meta=meta)


def object_array(path: Path, marker: Path) -> None:
    meta = {"b2o": {"kind": "c2array", "version": 1, "path": "a", "urlbase": "http://localhost:1"}}
    blosc2.asarray(np.zeros((4, 4)), urlpath=str(path), meta=meta)


def plain_bytes(path: Path, marker: Path) -> None:
    blosc2.SChunk(data=b"bytes", urlpath=str(path), contiguous=True)


@pytest.mark.parametrize("write", [lazy_array, proxy_array, object_array, plain_bytes])
def test_only_plain_arrays_are_opened(tmp_path: Path, write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    save_case(tmp_path)
    (tmp_path / "a.b2nd").unlink()
    write(tmp_path / "a.b2nd", tmp_path / "ran")
    monkeypatch.setattr(blosc2, "open", lambda *_, **__: os.mkdir(tmp_path / "ran"))  # must not be reached
    with pytest.raises(DataError, match=rf"a\.b2nd cannot be read; {AGAIN} \(it holds .*plain array is expected"):
        nnUNetDatasetBlosc2(str(tmp_path))._open(str(tmp_path / "a.b2nd"))
    assert not (tmp_path / "ran").exists()


def test_arrays_of_other_than_numbers_are_refused(tmp_path: Path) -> None:
    save_case(tmp_path)
    (tmp_path / "a.b2nd").unlink()
    blosc2.asarray(np.array(["text"] * 4), urlpath=str(tmp_path / "a.b2nd"))
    with pytest.raises(DataError, match=r"it holds a NDArray of <U4"):
        nnUNetDatasetBlosc2(str(tmp_path))["a"]


def test_stored_arrays_are_arrays_of_blosc2(tmp_path: Path) -> None:
    data = save_case(tmp_path)
    stored = nnUNetDatasetBlosc2(str(tmp_path))["a"][0]
    assert isinstance(stored, blosc2.NDArray)
    assert isinstance(stored, StoredArray)
    np.testing.assert_array_equal(np.asarray(stored), data)
    with pytest.raises(IndexError):
        stored[0, 0, 0, 100]

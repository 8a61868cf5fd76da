"""Writing and reading of preprocessed cases."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import blosc2
import numpy as np
import pytest

from nnunetv2.errors import DataError
from nnunetv2.preprocessing import stored_cases
from nnunetv2.preprocessing.stored_cases import (
    infer_dataset_class,
    nnUNetDatasetBlosc2,
    nnUNetDatasetNumpy,
    unpack_dataset,
)

FORMATS = [nnUNetDatasetBlosc2, nnUNetDatasetNumpy]
PROPERTIES = {"spacing": [3.0, 1.0, 0.5], "class_locations": {1: np.array([[0, 1, 2, 3]]), (1, 2): []}}
SHAPES = {"chunks": (1, 8, 8, 9), "blocks": (1, 4, 4, 9)}


def arrays(shape=(8, 10, 9)):
    random = np.random.default_rng(0)
    return random.standard_normal((2, *shape)).astype(np.float32), random.integers(-1, 3, (1, *shape)).astype(np.int16)


def save(dataset_class, folder: Path, *names: str):
    data, seg = arrays()
    options = SHAPES if dataset_class is nnUNetDatasetBlosc2 else {}
    for name in names:
        dataset_class.save_case(data, seg, PROPERTIES, str(folder / name), **options)
    return data, seg


@pytest.mark.parametrize("dataset_class", FORMATS)
def test_what_was_saved_is_loaded(dataset_class, tmp_path):
    data, seg = save(dataset_class, tmp_path, "b.1", "a")
    assert infer_dataset_class(str(tmp_path)) is dataset_class
    dataset = dataset_class(str(tmp_path))
    assert dataset.identifiers == ["a", "b.1"]
    for name in dataset.identifiers:
        loaded, loaded_seg, previous, properties = dataset[name]
        np.testing.assert_array_equal(loaded[:], data)
        np.testing.assert_array_equal(loaded_seg[:], seg)
        assert (loaded.dtype, loaded_seg.dtype, previous) == (np.float32, np.int16, None)
        assert properties["spacing"] == PROPERTIES["spacing"]
        np.testing.assert_array_equal(properties["class_locations"][1], PROPERTIES["class_locations"][1])


@pytest.mark.parametrize("dataset_class", FORMATS)
def test_segmentations_of_the_previous_stage(dataset_class, tmp_path):
    _, seg = save(dataset_class, tmp_path, "a")
    previous = tmp_path / "previous"
    previous.mkdir()
    for value in (1, 2):  # the second replaces the first
        dataset_class.save_seg(np.full_like(seg[0], value), str(previous / "a"))
    loaded = dataset_class(str(tmp_path), ["a"], str(previous))["a"][2]
    np.testing.assert_array_equal(loaded[:], np.full_like(seg[0], 2))


def test_identifiers_that_are_given_are_sorted_in_a_copy(tmp_path):
    given = ["b", "a"]
    assert nnUNetDatasetBlosc2(str(tmp_path), given).identifiers == ["a", "b"]
    assert given == ["b", "a"]


def test_files_are_opened_once_and_again_when_they_changed(tmp_path, monkeypatch):
    save(nnUNetDatasetBlosc2, tmp_path, "a", "b")
    opened = []
    for name in ("open_b2nd", "load_restricted"):
        read = getattr(stored_cases, name)
        noted = lambda path, read=read, **options: opened.append(Path(path).name) or read(path, **options)  # noqa: E731
        monkeypatch.setattr(stored_cases, name, noted)
    dataset = nnUNetDatasetBlosc2(str(tmp_path))
    dataset["a"][3]["added"] = 1
    for name in ("b", "a", "b"):
        assert "added" not in dataset[name][3]
    assert sorted(opened) == ["a.b2nd", "a.pkl", "a_seg.b2nd", "b.b2nd", "b.pkl", "b_seg.b2nd"]
    data, seg = arrays()
    nnUNetDatasetBlosc2.save_case(data + 1, seg, {"spacing": [1.0]}, str(tmp_path / "a"), **SHAPES)
    np.testing.assert_array_equal(dataset["a"][0][:], data + 1)
    assert dataset["a"][3] == {"spacing": [1.0]}
    (tmp_path / "b.pkl").unlink()
    with pytest.raises(DataError, match=r"There is no file .*b.pkl"):
        dataset["b"]


def test_a_dataset_that_was_read_can_be_sent_to_workers(tmp_path):
    data, _ = save(nnUNetDatasetBlosc2, tmp_path, "a")
    dataset = nnUNetDatasetBlosc2(str(tmp_path))
    dataset["a"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))["a"][0][:], data)


def test_stored_layout(tmp_path):
    save(nnUNetDatasetBlosc2, tmp_path, "a")
    data, seg, _, _ = nnUNetDatasetBlosc2(str(tmp_path))["a"]
    for array in (data, seg):
        assert (array.chunks, array.blocks) == (SHAPES["chunks"], SHAPES["blocks"])
        assert array.schunk.cparams.codec == blosc2.Codec.LZ4HC and array.schunk.cparams.clevel == 5


def test_filter_follows_the_values():
    select = nnUNetDatasetBlosc2._select_filter
    smooth = np.linspace(0, 1, 8 * 32 * 32, dtype=np.float32).reshape(1, 8, 32, 32)
    constant = np.zeros((1, 8, 32, 32), np.float32)
    args = ((1, 8, 32, 32), (1, 8, 32, 32), blosc2.Codec.LZ4HC, 5)
    assert select(smooth, *args) == blosc2.Filter.SHUFFLE
    assert select(constant, *args) == blosc2.Filter.NOFILTER


def test_missing_chunk_shapes_are_reported(tmp_path, caplog):
    data, seg = arrays()
    with caplog.at_level(logging.WARNING):
        nnUNetDatasetBlosc2.save_case(data, seg, {}, str(tmp_path / "a"))
    assert "no chunk and block shape" in caplog.text
    np.testing.assert_array_equal(nnUNetDatasetBlosc2(str(tmp_path))["a"][0][:], data)


@pytest.mark.parametrize("part", ["a.b2nd", "a_seg.b2nd", "a.pkl"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_named(part, kept, tmp_path):
    save(nnUNetDatasetBlosc2, tmp_path, "a")
    content = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=part):
        nnUNetDatasetBlosc2(str(tmp_path)).load_case("a")


def test_damaged_archives_and_missing_files_are_named(tmp_path):
    save(nnUNetDatasetNumpy, tmp_path, "a")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.npz cannot be read; run nnUNetv2_preprocess"):
        nnUNetDatasetNumpy(str(tmp_path)).load_case("a")
    with pytest.raises(DataError, match=r"There is no file .*b\.b2nd"):
        nnUNetDatasetBlosc2(str(tmp_path)).load_case("b")


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_properties_that_would_run_code_are_refused(tmp_path):
    save(nnUNetDatasetBlosc2, tmp_path, "a")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"spacing": Payload(tmp_path / "ran")}))
    with pytest.raises(DataError, match=r"a\.pkl"):
        nnUNetDatasetBlosc2(str(tmp_path)).load_case("a")
    assert not (tmp_path / "ran").exists()


def test_arrays_that_would_run_code_are_refused(tmp_path):
    save(nnUNetDatasetNumpy, tmp_path, "a")
    hostile = np.array([Payload(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "a.npz", data=hostile, seg=hostile)
    with pytest.raises(DataError, match=r"a\.npz"):
        nnUNetDatasetNumpy(str(tmp_path)).load_case("a")
    with pytest.raises(DataError, match=r"a\.npz"):
        unpack_dataset(str(tmp_path), num_processes=1)
    assert not (tmp_path / "ran").exists()


def test_a_write_that_fails_leaves_the_older_case(tmp_path, monkeypatch):
    data, seg = save(nnUNetDatasetBlosc2, tmp_path, "a")

    def full_disk(array, urlpath, **options):
        Path(urlpath).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(blosc2, "asarray", full_disk)
    with pytest.raises(OSError, match="No space"):
        nnUNetDatasetBlosc2.save_seg(seg, str(tmp_path / "a"))
    monkeypatch.undo()
    np.testing.assert_array_equal(nnUNetDatasetBlosc2(str(tmp_path))["a"][0][:], data)
    assert sorted(os.listdir(tmp_path)) == ["a.b2nd", "a.pkl", "a_seg.b2nd"]


def test_left_overs_of_killed_writes_are_no_cases(tmp_path):
    save(nnUNetDatasetBlosc2, tmp_path, "a")
    (tmp_path / ".1234.tmp.b.b2nd").write_bytes(b"half")
    (tmp_path / ".1234.tmp.c.npz").write_bytes(b"half")
    assert nnUNetDatasetBlosc2.get_identifiers(str(tmp_path)) == ["a"]
    assert infer_dataset_class(str(tmp_path)) is nnUNetDatasetBlosc2


@pytest.mark.parametrize("names", [[], ["a.b2nd", "b.npz"], ["notes.txt"]])
def test_folders_of_no_known_format_are_refused(names, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"either \.b2nd or \.npz"):
        infer_dataset_class(str(tmp_path))
    with pytest.raises(DataError, match="There is no folder .*absent; make it with: nnUNetv2_preprocess$"):
        infer_dataset_class(str(tmp_path / "absent"))


def test_unpacked_arrays_are_used_and_repaired(tmp_path):
    data, _ = save(nnUNetDatasetNumpy, tmp_path, "a")
    nnUNetDatasetNumpy.unpack_dataset(str(tmp_path), num_processes=1)
    assert isinstance(nnUNetDatasetNumpy(str(tmp_path))["a"][0], np.memmap)
    (tmp_path / "a.npy").write_bytes(b"damaged")
    nnUNetDatasetNumpy.unpack_dataset(str(tmp_path), num_processes=1, verify=True)
    np.testing.assert_array_equal(nnUNetDatasetNumpy(str(tmp_path))["a"][0], data)
    np.save(tmp_path / "a.npy", data * 2)
    unpack_dataset(str(tmp_path), num_processes=1)  # what is there and readable stays
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), data * 2)
    unpack_dataset(str(tmp_path), num_processes=1, overwrite_existing=True)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), data)


def test_upstreams_import_paths_lead_here():
    from nnunetv2.training.dataloading import nnunet_dataset, utils

    assert nnunet_dataset.nnUNetDatasetBlosc2 is nnUNetDatasetBlosc2
    assert utils.unpack_dataset is unpack_dataset

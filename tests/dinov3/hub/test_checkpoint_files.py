"""Files of tensors: every kind is recognised by its content, and no kind of bad file does harm."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dinov3.hub.checkpoint_files import read_state_dict
from dinov3.utils.errors import DataError, UsageError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def save_in_zip(weights: object, path: Path) -> None:
    torch.save(weights, path)


def save_as_pickle(weights: object, path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


WRITERS = {"zip": save_in_zip, "pickle": save_as_pickle, "safetensors": save_file}


def assert_holds_weights(tensors: dict[str, Tensor]) -> None:
    torch.testing.assert_close(tensors, WEIGHTS, rtol=0, atol=0)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin", "w"])
def test_a_file_is_recognised_by_its_content(tmp_path, writer, name):
    WRITERS[writer](WEIGHTS, tmp_path / name)
    assert_holds_weights(read_state_dict(tmp_path / name))


@pytest.mark.parametrize("entry", ["teacher", "model_ema", "ema", "model", "state_dict", "student"])
def test_the_network_is_taken_out_of_a_training_checkpoint(tmp_path, entry):
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, entry: WEIGHTS}, tmp_path / "w.pth")
    assert_holds_weights(read_state_dict(tmp_path / "w.pth"))


def test_the_teacher_goes_before_the_student_and_entries_may_be_nested(tmp_path):
    other = {"a.weight": torch.zeros(2, 3)}
    torch.save({"model": {"student": other, "teacher": {"state_dict": WEIGHTS}}}, tmp_path / "w.pth")
    assert_holds_weights(read_state_dict(tmp_path / "w.pth"))


@pytest.mark.parametrize("writer", ["zip", "pickle"])
def test_settings_saved_beside_the_weights_are_passed_over(tmp_path, writer):
    settings = argparse.Namespace(lr=0.1, inner=argparse.Namespace(name="mae"))
    WRITERS[writer]({"model": WEIGHTS, "args": settings}, tmp_path / "w.pth")
    assert_holds_weights(read_state_dict(tmp_path / "w.pth"))


def test_a_folder_of_hugging_face_is_read_in_one_piece_or_several(tmp_path):
    save_file({"a.weight": WEIGHTS["a.weight"]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"a.bias": WEIGHTS["a.bias"]}, tmp_path / "model-00002-of-00002.safetensors")
    places = {"a.weight": "model-00001-of-00002.safetensors", "a.bias": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_holds_weights(read_state_dict(tmp_path))
    assert_holds_weights(read_state_dict(index))
    save_file({"a.bias": WEIGHTS["a.bias"]}, tmp_path / "model.safetensors")
    assert list(read_state_dict(tmp_path)) == ["a.bias"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight_map": {"a": "../w.safetensors"}}, "other files than"),
        ({"weight_map": {"a": "w.pth"}}, "other files than"),
        ({"weights": {}}, "not the index of a model"),
        ([1], "not the index of a model"),
        ({"weight_map": {"b": "w.safetensors"}}, "promises b, and w.safetensors does not hold it"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, content, message):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_state_dict(tmp_path)


class Payload:
    """Creates a file in the working directory when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (open, ("executed", "w"))


@pytest.mark.parametrize("writer", ["zip", "pickle"])
@pytest.mark.parametrize("place", ["model", "args"])
def test_a_file_that_asks_for_code_is_refused_by_name_and_nothing_runs(tmp_path, monkeypatch, writer, place):
    monkeypatch.chdir(tmp_path)
    WRITERS[writer]({"model": WEIGHTS, place: Payload()}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w.pth cannot be read .* it asks for (_?io|builtins).open, and only tensors"):
        read_state_dict(tmp_path / "w.pth")
    assert os.listdir(tmp_path) == ["w.pth"]


def test_settings_cannot_smuggle_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(hidden=Payload())}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"it asks for \S+open"):
        read_state_dict(tmp_path / "w.pth")
    assert os.listdir(tmp_path) == ["w.pth"]


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"asks for torch.nn.modules.linear.Linear.*have the state dict saved alone"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_called_damaged(tmp_path, writer, kept):
    path = tmp_path / "w.pth"
    WRITERS[writer]({"a": torch.randn(500)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"w.pth cannot be read as a file of weights: it is damaged") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"epoch,loss\n1,0.5\n", "neither torch.save nor safetensors wrote it"),
        (b"\n<!DOCTYPE html><html>Log in</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"PK\x03\x04 and then no archive", "damaged"),
        (b"\x80\x02 and then no pickle", "damaged"),
        (b"\xff" * 8 + b"{" + b"\xff" * 50, "damaged"),
    ],
)
def test_a_file_of_another_kind_is_named_and_refused(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(DataError, match=f"w.pth cannot be read as a file of weights: .*{message}"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it is empty"),
        ({"epoch": 3}, "entry 'epoch' is a int; entries: epoch"),
        ({"net": WEIGHTS, "epoch": 3}, "entry 'net' is a dict; entries: net, epoch"),
        ([torch.ones(1)], "it holds a list"),
        (torch.ones(1), "it holds a Tensor"),
    ],
)
def test_a_file_of_other_things_is_described(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=f"w.pth holds no plain state dict.*{message}"):
        read_state_dict(tmp_path / "w.pth")


def test_what_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(UsageError, match=r"none.pth do not exist"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"holds neither model.safetensors nor"):
        read_state_dict(tmp_path)
    (tmp_path / ".metadata").touch()
    with pytest.raises(UsageError, match="dcp_to_torch"):
        read_state_dict(tmp_path)

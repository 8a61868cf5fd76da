import collections
import os

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint


@pytest.fixture
def checkpoint() -> dict:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "network_weights": collections.OrderedDict(network.state_dict()),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {
            "ema": [np.float32(0.5), np.float64(0.25)],
            "dice": [[np.float16(1), np.bool_(True)]],
            "lrs": [0.01],
        },
        "_best_ema": np.float32(0.7),
        "current_epoch": 3,
        "init_args": {"plans": {"a": [1, None]}, "fold": 0, "device": torch.device("cpu")},
        "inference_allowed_mirroring_axes": (0, 1),
    }


def test_checkpoint_comes_back_equal(checkpoint, tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    save_checkpoint(checkpoint, path)
    loaded = load_checkpoint(path)
    torch.testing.assert_close(loaded["network_weights"], checkpoint["network_weights"], rtol=0, atol=0)
    for key in ("logging", "_best_ema", "current_epoch", "init_args", "inference_allowed_mirroring_axes"):
        assert loaded[key] == checkpoint[key]
    assert type(loaded["_best_ema"]) is np.float32
    assert os.listdir(tmp_path) == ["checkpoint_final.pth"]


def test_equal_checkpoints_are_equal_files(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "a.pth")
    save_checkpoint(checkpoint, tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_failed_save_keeps_the_old_file(checkpoint, tmp_path):
    path = tmp_path / "checkpoint_latest.pth"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint({"cannot be pickled": lambda: None}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def call(function, *arguments):
    return type("Payload", (), {"__reduce__": lambda self: (function, arguments)})()


def payloads(marker):
    return {
        "system": call(os.system, f"touch {marker}"),
        "open": call(open, str(marker), "w"),
        "eval": call(eval, f"open({str(marker)!r}, 'w')"),
        "nested in init_args": {"init_args": {"plans": {"deep": [call(os.system, f"touch {marker}")]}}},
        "nested in logging": {"network_weights": {}, "logging": {"x": [call(exec, f"open({str(marker)!r}, 'w')")]}},
    }


@pytest.mark.parametrize("legacy_format", [False, True])
@pytest.mark.parametrize("name", payloads("x"))
def test_nothing_in_a_checkpoint_is_run(tmp_path, name, legacy_format):
    marker = tmp_path / "marker"
    path = tmp_path / "checkpoint_final.pth"
    torch.save(payloads(marker)[name], path, _use_new_zipfile_serialization=not legacy_format)
    with pytest.raises(DataError, match="checkpoint_final.pth"):
        load_checkpoint(path)
    assert not marker.exists()


def test_message_says_what_the_checkpoint_asked_for(tmp_path):
    torch.save({"a": call(os.system, "true")}, tmp_path / "c.pth")
    with pytest.raises(
        DataError, match="c.pth was not opened: it asks for posix.system, and a checkpoint may only hold"
    ):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.99])
def test_truncated_checkpoint_is_named(checkpoint, tmp_path, fraction):
    path = tmp_path / "checkpoint_latest.pth"
    save_checkpoint(checkpoint, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(DataError, match="checkpoint_latest.pth is damaged"):
        load_checkpoint(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataError, match="There is no checkpoint .*c.pth"):
        load_checkpoint(tmp_path / "c.pth")
    torch.save([1, 2], tmp_path / "c.pth")
    with pytest.raises(DataError, match="holds a list where a dict is expected"):
        load_checkpoint(tmp_path / "c.pth")
    (tmp_path / "c.pth").write_text("not a checkpoint")
    with pytest.raises(DataError, match="c.pth is damaged"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.oracle
def test_upstream_checkpoints_open(oracle_recorded):
    paths = list(oracle_recorded.glob("results/*/*/fold_*/checkpoint_*.pth"))
    assert paths
    for path in paths:
        ours = load_checkpoint(path)
        theirs = torch.load(path, weights_only=False)
        assert ours["init_args"] == theirs["init_args"]
        assert ours["logging"] == theirs["logging"]
        torch.testing.assert_close(ours["network_weights"], theirs["network_weights"], rtol=0, atol=0)


class _WithState:
    """Gives an object a state of our choice when it is unpickled."""

    def __reduce__(self):
        return np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63)


def test_memory_flags_of_a_dtype_are_not_taken_over(tmp_path):
    """Flags 63 make numpy take integers for addresses of objects."""
    torch.save({"x": _WithState()}, tmp_path / "c.pth")
    assert load_checkpoint(tmp_path / "c.pth")["x"].dtype.flags == np.dtype("i8").flags

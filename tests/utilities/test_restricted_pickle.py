import builtins
import collections
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from nnunetv2.errors import DataError
from nnunetv2.utilities.restricted_pickle import load_restricted, save_pickle

PROPERTIES = {
    "spacing": [np.float64(4.0), 0.8, 0.8],
    "sitk_stuff": {"origin": (-10.0, 5.0, 2.0)},
    "bbox": [[0, 3], [1, 9]],
    "class_locations": {1: np.arange(8).reshape(2, 4), (1, 2): np.zeros((0, 4), np.int64), 3: []},
    "flags": {True, None, "x", b"\xff\x00", 1 + 2j},
    "ordered": collections.OrderedDict(a=np.float32(1), b=np.bool_(False)),
    "text": np.array(["a", "bc"]),
    "fortran": np.asfortranarray(np.eye(3, dtype=np.int8)),
}


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_equal(tmp_path, protocol):
    path = tmp_path / "case.pkl"
    path.write_bytes(pickle.dumps(PROPERTIES, protocol))
    assert_same(load_restricted(path), PROPERTIES)


def test_numpy_1_module_names_are_understood(tmp_path):
    path = tmp_path / "case.pkl"
    data = pickle.dumps(np.arange(3), protocol=0)
    assert b"numpy._core" in data
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(load_restricted(path), np.arange(3))


def test_written_pickles_are_plain_pickles(tmp_path):
    save_pickle(PROPERTIES, tmp_path / "case.pkl")
    with open(tmp_path / "case.pkl", "rb") as file:
        assert_same(pickle.load(file), PROPERTIES)
    assert os.listdir(tmp_path) == ["case.pkl"]


def call(function, *arguments):
    """An object whose pickle calls a function."""
    return type("Payload", (), {"__reduce__": lambda self: (function, arguments)})()


class _Instance:
    pass


def payloads(marker):
    command = f"touch {marker}"
    return {
        "system": call(os.system, command),
        "open": call(builtins.open, str(marker), "w"),
        "eval": call(eval, f"open({str(marker)!r}, 'w')"),
        "exec": call(exec, f"open({str(marker)!r}, 'w')"),
        "subprocess": call(subprocess.check_call, ["touch", str(marker)]),
        "getattr": call(getattr, {}, "keys"),
        "nested in a dict": {"spacing": [1, 2, {"deep": call(os.system, command)}]},
        "in an object array": np.array([call(os.system, command)], dtype=object),
        "instance": _Instance(),
    }


@pytest.mark.parametrize("name", payloads("x"))
def test_nothing_in_a_file_is_run(tmp_path, name):
    marker = tmp_path / "marker"
    path = tmp_path / "case.pkl"
    path.write_bytes(pickle.dumps(payloads(marker)[name]))
    with pytest.raises(DataError, match="case.pkl was not opened"):
        load_restricted(path)
    assert not marker.exists()


def test_message_says_what_the_file_asked_for(tmp_path):
    path = tmp_path / "case.pkl"
    path.write_bytes(pickle.dumps(call(os.system, "true")))
    with pytest.raises(DataError, match="posix.system|nt.system"):
        load_restricted(path)


def test_object_arrays_are_refused(tmp_path):
    path = tmp_path / "case.pkl"
    path.write_bytes(pickle.dumps(np.array([{}, 1], dtype=object)))
    with pytest.raises(DataError, match="dtype object"):
        load_restricted(path)
    path.write_bytes(pickle.dumps(np.zeros(1, dtype=[("field", object)])))
    with pytest.raises(DataError, match="was not opened"):
        load_restricted(path)


class _State:
    """Gives an object a state of our choice when it is unpickled."""

    def __init__(self, make, arguments, state):
        self._parts = (make, arguments, state)

    def __reduce__(self):
        return self._parts


def test_memory_flags_of_a_dtype_are_not_taken_over(tmp_path):
    """Flags 63 make numpy take integers for addresses of objects."""
    path = tmp_path / "case.pkl"
    path.write_bytes(pickle.dumps(_State(np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63))))
    assert load_restricted(path).dtype.flags == np.dtype("i8").flags


def test_functions_get_no_state(tmp_path):
    path = tmp_path / "case.pkl"
    path.write_bytes(b"cnumpy._core.multiarray\nscalar\n}S'x'\nI1\nsb.")
    with pytest.raises(DataError, match="the state of a function"):
        load_restricted(path)


def test_named_functions_can_be_allowed(tmp_path):
    path = tmp_path / "postprocessing.pkl"
    path.write_bytes(pickle.dumps(([os.path.join], [{}])))
    replacement = object()
    loaded = load_restricted(path, extra={("posixpath", "join"): replacement})
    assert loaded == ([replacement], [{}])


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match="There is no file .*case.pkl"):
        load_restricted(tmp_path / "case.pkl")
    whole = pickle.dumps(PROPERTIES)
    for length in range(0, len(whole), 7):
        (tmp_path / "case.pkl").write_bytes(whole[:length])
        with pytest.raises(DataError, match="case.pkl"):
            load_restricted(tmp_path / "case.pkl")


def test_random_bytes_raise_nothing_else(tmp_path):
    whole = bytearray(pickle.dumps(PROPERTIES))
    random = np.random.default_rng(0)
    path = tmp_path / "case.pkl"
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            load_restricted(path)
        except DataError:
            continue


@pytest.mark.oracle
def test_every_recorded_pickle_opens_and_equals(oracle_recorded):
    paths = list(oracle_recorded.rglob("*.pkl"))
    assert len(paths) > 20
    for path in paths:
        assert_same(load_restricted(path), pickle.load(io.BytesIO(path.read_bytes())))


def test_reading_does_not_need_torch():
    code = "import sys, nnunetv2.utilities.restricted_pickle; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

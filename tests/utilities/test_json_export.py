import json
from collections import OrderedDict

import numpy as np
import pytest
import torch

from nnunetv2.utilities.json_export import fix_types_iterable, json_ready, recursive_fix_for_json_export

CONTENT = {
    np.int64(3): np.float32(0.5),
    "array": np.arange(3, dtype=np.uint16),
    "matrix": np.eye(2),
    "flag": np.bool_(True),
    "nested": {"list": [np.int8(1), {"deep": (np.float16(2), "text")}], "empty": []},
    "device": torch.device("cuda", 1),
    "none": None,
}
PLAIN = {
    3: 0.5,
    "array": [0, 1, 2],
    "matrix": [[1.0, 0.0], [0.0, 1.0]],
    "flag": True,
    "nested": {"list": [1, {"deep": (2.0, "text")}], "empty": []},
    "device": "cuda:1",
    "none": None,
}


def test_content_becomes_plain_at_any_depth():
    plain = json_ready(CONTENT)
    assert plain == PLAIN
    assert {type(key) for key in plain} == {int, str}
    assert type(plain["flag"]) is bool
    json.dumps(plain)
    assert isinstance(CONTENT["array"], np.ndarray)


def test_in_place_conversion_keeps_the_dictionary():
    content = OrderedDict(CONTENT)
    assert recursive_fix_for_json_export(content) is None
    assert content == PLAIN


@pytest.mark.parametrize("kind", [list, tuple])
def test_entries_go_into_the_asked_container(kind):
    assert fix_types_iterable(np.array([1.5, 2.5]), kind) == kind([1.5, 2.5])

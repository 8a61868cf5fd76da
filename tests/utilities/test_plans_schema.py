"""Entries of plans are checked, and plans of upstream, of older versions and of nnssl pass."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from nnunetv2.errors import DataError
from nnunetv2.utilities.plans_handling.plans_schema import check_plans, read_plans
from tests.recorded.make_utilities_imageio import OLD_CONFIGURATION
from tests.training.tiny_dataset import tiny_plans


def test_plans_pass_unchanged() -> None:
    plans = {**tiny_plans(), "a later key": object()}
    assert check_plans(plans) is plans
    check_plans({"configurations": {"old": OLD_CONFIGURATION}})


@pytest.mark.oracle
def test_plans_of_upstream_and_nnssl_pass(oracle_recorded: Path) -> None:
    files = [path for path in oracle_recorded.rglob("*.json") if "lans" in path.name]
    assert len(files) > 50
    for path in files:
        read_plans(path)


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        ("plans_name", ["a"], r"\['a'\] cannot be the name of plans"),
        ("transpose_forward", [0, 1, 3], r"\"transpose_forward\" is \[0, 1, 3\]; .* like \[0, 1, 2\]"),
        ("transpose_backward", [1, 0, 2], 'does not undo "transpose_forward"'),
        ("image_reader_writer", "os.system", "\"image_reader_writer\" is 'os.system'; .*name of a class"),
        ("foreground_intensity_properties_per_channel", {"0": {"mean": "1"}}, "numbers for each channel"),
        ("configurations", ["2d"], r"\"configurations\" is \['2d'\]"),
        ("configurations.2d", None, 'configuration "2d" is None'),
        ("configurations.2d.batch_size", "2", "\"batch_size\" is '2'; it must be an integer above 0"),
        ("configurations.2d.patch_size", [32, 0], r"\"patch_size\" is \[32, 0\]"),
        ("configurations.2d.spacing", [1.0, float("nan")], r"\"spacing\" is \[1.0, nan\]"),
        ("configurations.2d.use_mask_for_norm", [False, True], '"normalization_schemes" has 1 entries and'),
        ("configurations.2d.inherits_from", "3d", "\"inherits_from\" is '3d'; the configurations are 2d"),
        ("configurations.2d.resampling_fn_data_kwargs", [3], r"\"resampling_fn_data_kwargs\" is \[3\]"),
        ("configurations.2d.architecture", "UNet", "\"architecture\" is 'UNet'"),
        ("configurations.2d.architecture.network_class_name", "a b", "\"network_class_name\" is 'a b'; .*dotted"),
        ("configurations.2d.architecture.arch_kwargs", [], r"\"arch_kwargs\" is \[\]"),
        ("configurations.2d.architecture.arch_kwargs.conv_op", 3, '"conv_op" in "arch_kwargs" is 3; "_kw_req'),
    ],
)
def test_wrong_entries_are_named(way: str, value: object, message: str, tmp_path: Path) -> None:
    plans = copy.deepcopy(tiny_plans())
    *parents, last = way.split(".")
    place = plans
    for key in parents:
        place = place[key]
    place[last] = value
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(plans))
    with pytest.raises(DataError, match=message) as refused:
        read_plans(path)
    assert str(path) in str(refused.value)

"""Plans are found by what they contain, and named so that files and models can have the name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.utilities.plans_handling.plans_files import command_that_makes, listed_plans, require_plans_name


@pytest.fixture
def preprocessed(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset004_A b"
    folder.mkdir()
    plans = {"plans_name": "x", "configurations": {"2d": {"data_identifier": "my 2d"}, "same": {"inherits_from": "2d"}}}
    contents = {"from_CT": json.dumps(plans), "dataset": "{}", "Plans": '{"configurations": {}}', "broken": "{"}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(content)
    (folder / "latin.json").write_bytes(b"\xff")
    return folder


def test_plans_of_any_name_are_listed_and_nothing_else(preprocessed: Path, tmp_path: Path) -> None:
    assert listed_plans(preprocessed) == "from_CT"
    assert listed_plans(tmp_path / "nowhere") == "none"


def test_the_command_that_makes_a_folder_is_that_of_the_plans_which_name_it(preprocessed: Path) -> None:
    assert command_that_makes(preprocessed / "my 2d") == "nnUNetv2_preprocess -d 4 -plans_name from_CT -c 2d"
    assert command_that_makes(preprocessed / "2d") == "nnUNetv2_preprocess"
    assert command_that_makes(preprocessed.rename(preprocessed.with_name("x")) / "my 2d") == "nnUNetv2_preprocess"


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a__b", "", " ", ".a", "dataset", "splits_final"])
def test_names_that_are_none_for_plans(name: str) -> None:
    with pytest.raises(
        UsageError, match="Plans cannot be named .*; choose a name like nnUNetPlans|cannot be the name of plans"
    ):
        require_plans_name(name)
    assert require_plans_name("nnUNetResEncUNetMPlans_80G v1.2") == "nnUNetResEncUNetMPlans_80G v1.2"

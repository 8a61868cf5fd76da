from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.dataset_conversion.generate_dataset_json import NOT_STATED, generate_dataset_json
from nnunetv2.errors import DataError, UsageError
from tests.dataset_conversion.recorded_answers import recorded
from tests.recorded.conversion_cases import JSON_ARGUMENTS

LABELS = {"background": 0, "liver": 1}


def written(folder, labels=LABELS, **arguments):
    generate_dataset_json(folder, {0: "CT"}, labels, 3, ".png", **arguments)
    return json.loads((folder / "dataset.json").read_text())


@pytest.mark.oracle
@pytest.mark.parametrize("name", JSON_ARGUMENTS)
def test_the_file_is_upstreams(name, tmp_path):
    arguments = deepcopy(JSON_ARGUMENTS[name])
    generate_dataset_json(str(tmp_path), num_training_cases=3, file_ending=".nii.gz", **arguments)
    assert (tmp_path / "dataset.json").read_text() == recorded("generate_dataset_json")[name]
    assert arguments == JSON_ARGUMENTS[name], "the arguments were changed"


def test_the_citation_is_written(tmp_path):
    """Upstream writes the release in its place."""
    content = written(tmp_path, citation=["A", "B"], release="2.0")
    assert (content["citation"], content["release"]) == (["A", "B"], "2.0")


def test_what_was_not_given_is_not_stated(tmp_path):
    content = written(tmp_path)
    assert content["licence"] == content["converted_by"] == NOT_STATED
    assert list(content) == ["channel_names", "labels", "numTraining", "file_ending", "licence", "converted_by"]


def test_numbers_of_numpy_are_taken(tmp_path):
    labels = {"background": np.int64(0), "all": (np.uint8(1), 2), "core": np.int32(2)}
    content = written(tmp_path, labels=labels, regions_class_order=np.array([1, 2]), extra=np.float32(0.5))
    assert content["labels"] == {"background": 0, "all": [1, 2], "core": 2}
    assert (content["regions_class_order"], content["extra"]) == ([1, 2], 0.5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "all": (1, 2)}, 'no "regions_class_order"'),
        ({"0": "background", "1": "liver"}, "names come first"),
        ({"background": 0, "liver": 2}, "without gaps"),
    ],
)
def test_labels_that_nnunet_cannot_use_are_refused(labels, message, tmp_path):
    with pytest.raises(DataError, match=message):
        written(tmp_path, labels)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_and_an_ending_without_dot_are_refused(tmp_path):
    with pytest.raises(UsageError, match="There is no folder .*nowhere; make it"):
        generate_dataset_json(tmp_path / "nowhere", {0: "CT"}, LABELS, 3, ".png")
    with pytest.raises(UsageError, match="'nii.gz'; it must begin with a dot"):
        generate_dataset_json(tmp_path, {0: "CT"}, LABELS, 3, "nii.gz")


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[2] / "docs" / "dataset_conversion.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("Dataset027_ACDC").mkdir()
    exec(compile(example, "docs/dataset_conversion.md", "exec"), {})
    assert json.loads(Path("Dataset027_ACDC/dataset.json").read_text())["labels"]["LVC"] == 3

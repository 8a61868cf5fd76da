import copy
import json
import os

import pytest

from nnunetv2.errors import DataError
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.utils import (
    create_lists_from_splitted_dataset_folder,
    create_paths_fn,
    get_filenames_of_train_images_and_targets,
    get_identifiers_from_splitted_dataset_folder,
)


@pytest.fixture
def dataset(tmp_path):
    images = tmp_path / "imagesTr"
    images.mkdir()
    for name in ("b_0001", "b_0000", "a_0000", "a_0001", "a_b_0000", "a.b_0000"):
        (images / f"{name}.nii.gz").touch()
    (images / "._a_0000.nii.gz").touch()
    (images / "notes.txt").touch()
    (images / "folder_0000.nii.gz").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    return tmp_path


def test_identifiers_are_sorted_and_unique(dataset):
    found = get_identifiers_from_splitted_dataset_folder(dataset / "imagesTr", ".nii.gz")
    assert found == ["a", "a.b", "a_b", "b"]


def test_channels_of_a_case_are_in_order(dataset):
    folder = str(dataset / "imagesTr")
    lists = create_lists_from_splitted_dataset_folder(folder, ".nii.gz", ["b", "missing", "a.b"], num_processes=2)
    assert lists == [
        [f"{folder}/b_0000.nii.gz", f"{folder}/b_0001.nii.gz"],
        [],
        [f"{folder}/a.b_0000.nii.gz"],
    ]
    assert len(create_lists_from_splitted_dataset_folder(folder, ".nii.gz")) == 4


def test_paths_of_one_case():
    files = ["a_0000.png", "a_b_0000.png", "a_00001.png", "aX0000.png", "a_0001.png"]
    assert create_paths_fn("/f", files, ".png", "a") == ["/f/a_0000.png", "/f/a_0001.png"]


def test_image_without_channel_number_is_named(dataset):
    (dataset / "imagesTr" / "case.nii.gz").touch()
    with pytest.raises(
        DataError, match=r"imagesTr/case.nii.gz has no channel number; images are named CASE_0000.nii.gz"
    ):
        get_identifiers_from_splitted_dataset_folder(dataset / "imagesTr", ".nii.gz")


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="There is no folder .*imagesTr"):
        get_identifiers_from_splitted_dataset_folder(tmp_path / "imagesTr", ".png")


def test_training_cases_come_from_the_folders(dataset):
    cases = get_filenames_of_train_images_and_targets(str(dataset))
    assert list(cases) == ["a", "a.b", "a_b", "b"]
    assert cases["b"] == {
        "images": [f"{dataset}/imagesTr/b_0000.nii.gz", f"{dataset}/imagesTr/b_0001.nii.gz"],
        "label": f"{dataset}/labelsTr/b.nii.gz",
    }


def test_training_cases_may_be_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", "/data")
    listed = {
        "file_ending": ".png",
        "dataset": {"x": {"images": ["img/1.png", "$ELSEWHERE/2.png"], "label": "../l.png"}},
    }
    before = copy.deepcopy(listed)
    cases = get_filenames_of_train_images_and_targets(tmp_path, listed)
    assert cases["x"]["images"] == [f"{tmp_path}/img/1.png", "/data/2.png"]
    assert cases["x"]["label"] == os.path.join(tmp_path.parent, "l.png")
    assert listed == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, 'dataset.json has no key "file_ending"'),
        ({"dataset": {"a": {"images": []}}}, "case 'a' in \"dataset\" is .*; it maps each case to its files"),
        ({"dataset": {"../a": {"images": [], "label": ""}}}, "'../a' cannot be the name of a case"),
    ],
)
def test_broken_dataset_json_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        get_filenames_of_train_images_and_targets(tmp_path, content)


NASTY = ["../evil", "..", "/etc/passwd", "a/../../b", "..\\b", "a\0b", "x" * 300, "", "c:evil", "a\nb", None]


@pytest.mark.parametrize("identifier", NASTY)
def test_nasty_identifiers_are_refused(identifier):
    with pytest.raises(DataError, match="cannot be the name of a case"):
        check_case_identifier(identifier)


@pytest.mark.parametrize("identifier", ["case_001", "Fall 7 (alt)", "a..b", "Übung-2", "2.25.1234"])
def test_ordinary_identifiers_are_accepted(identifier):
    assert check_case_identifier(identifier) == identifier

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetv2.dataset_conversion import convert_raw_dataset_from_old_nnunet_format as module
from nnunetv2.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert, convert_entry_point
from nnunetv2.errors import DataError, UsageError
from tests.dataset_conversion.recorded_answers import recorded
from tests.recorded.conversion_cases import describe_folder, write_msd_task, write_old_task

NAME = "Dataset027_Hearts"


@pytest.fixture
def raw(nnunet_folders) -> Path:
    return nnunet_folders["nnUNet_raw"]


@pytest.fixture
def task(tmp_path) -> Path:
    return write_old_task(tmp_path)


@pytest.mark.oracle
def test_a_converted_dataset_equals_upstreams(raw, task):
    convert(str(task), NAME)
    assert [path.name for path in raw.iterdir()] == [NAME]
    assert describe_folder(raw / NAME) == recorded(NAME)


def test_files_of_macos_are_left_out(raw, task):
    (task / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"junk")
    convert(task, NAME)
    assert describe_folder(raw / NAME) == recorded(NAME)


def test_entries_that_v1_did_not_always_write_may_be_missing(raw, task):
    content = json.loads((task / "dataset.json").read_text())
    kept = {key: value for key, value in content.items() if key in ("modality", "labels")}
    (task / "dataset.json").write_text(json.dumps(kept))
    convert(task, NAME)
    content = json.loads((raw / NAME / "dataset.json").read_text())
    assert content == {
        "labels": {"background": 0, "duct": 1, "stone": 2},
        "numTraining": 2,
        "channel_names": {"0": "CT", "1": "PET"},
        "file_ending": ".nii.gz",
    }


def test_names_that_are_taken_or_are_none_are_refused(raw, nnunet_folders, task):
    for name, message in [
        ("Task027_Hearts", "is not a dataset name"),
        ("Dataset27_Hearts", "is not a dataset name"),
        ("Dataset027", "is no name of a dataset"),
        ("Dataset027_Hearts/../x", "cannot be the name of a dataset"),
    ]:
        with pytest.raises(UsageError, match=message):
            convert(task, name)
    (raw / NAME).mkdir()
    with pytest.raises(UsageError, match="Dataset027_Hearts exists already; remove it"):
        convert(task, NAME)
    with pytest.raises(UsageError, match="27 belongs to Dataset027_Hearts; choose another"):
        convert(task, "Dataset027_Valves")
    assert not list((raw / NAME).iterdir())


def test_a_model_of_that_name_does_not_hinder(nnunet_folders, task):
    (nnunet_folders["nnUNet_results"] / NAME).mkdir()
    convert(task, NAME)
    assert (nnunet_folders["nnUNet_raw"] / NAME / "dataset.json").is_file()


def test_datasets_that_are_not_of_v1_are_refused(raw, task, tmp_path):
    with pytest.raises(UsageError, match="nnUNetv2_convert_MSD_dataset"):
        convert(write_msd_task(tmp_path), NAME)
    (task / "imagesTr" / "b_1_0001.nii.gz").unlink()
    with pytest.raises(DataError, match="case b_1 has 1 channels, dataset.json names 2 \\(CT, PET\\)"):
        convert(task, NAME)
    (task / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match="a has no label; get the missing files"):
        convert(task, NAME)
    (task / "dataset.json").unlink()
    with pytest.raises(UsageError, match="has no dataset.json; a dataset has dataset.json, imagesTr, labelsTr"):
        convert(task, NAME)
    assert not list(raw.iterdir())


def test_an_interrupted_conversion_leaves_nothing(raw, task, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dinov3.utils.atomic_files.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        module.convert(task, NAME)
    assert not list(raw.iterdir())


def test_the_command_converts_and_says_what_is_wrong_in_one_line(raw, task, capsys):
    assert convert_entry_point([str(task), NAME]) == 0
    assert convert_entry_point([str(task), NAME]) == 2
    assert capsys.readouterr().err.count("\n") == 1

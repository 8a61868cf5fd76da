import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.utilities.dataset_name_id_conversion import (
    convert_dataset_name_to_id,
    convert_id_to_dataset_name,
    find_candidate_datasets,
    maybe_convert_to_dataset_name,
)


@pytest.fixture
def datasets(nnunet_folders):
    (nnunet_folders["nnUNet_raw"] / "Dataset004_Hippocampus").mkdir()
    (nnunet_folders["nnUNet_preprocessed"] / "Dataset004_Hippocampus").mkdir()
    (nnunet_folders["nnUNet_results"] / "Dataset100_A").mkdir()
    (nnunet_folders["nnUNet_raw"] / "Dataset1000_B").mkdir()
    (nnunet_folders["nnUNet_raw"] / "Dataset005_file").write_text("")
    return nnunet_folders


@pytest.mark.parametrize("given", [4, "4", "004", np.int64(4), "Dataset004_Hippocampus"])
def test_dataset_is_found_by_number_or_name(datasets, given):
    assert maybe_convert_to_dataset_name(given) == "Dataset004_Hippocampus"


def test_all_three_roots_are_searched_and_numbers_match_as_a_whole(datasets):
    assert convert_id_to_dataset_name(100) == "Dataset100_A"
    assert convert_id_to_dataset_name(1000) == "Dataset1000_B"
    assert find_candidate_datasets(5) == []


def test_name_is_taken_as_it_is_without_folders():
    assert maybe_convert_to_dataset_name("Dataset999_New") == "Dataset999_New"


def test_unknown_number_lists_the_roots_and_what_is_there(datasets, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    monkeypatch.setenv("nnUNet_results", "/nowhere/results")
    with pytest.raises(UsageError) as raised:
        convert_id_to_dataset_name(7)
    message = str(raised.value)
    assert "no dataset with id 7" in message
    assert f"nnUNet_raw={datasets['nnUNet_raw']}," in message
    assert "nnUNet_preprocessed (not set)" in message
    assert "nnUNet_results=/nowhere/results (no such folder)" in message
    assert message.endswith("Datasets there: Dataset004_Hippocampus, Dataset1000_B")


def test_two_names_for_one_number_are_refused(datasets):
    (datasets["nnUNet_results"] / "Dataset004_Other").mkdir()
    with pytest.raises(UsageError, match="id 4 stands for Dataset004_Hippocampus and Dataset004_Other"):
        convert_id_to_dataset_name(4)


@pytest.mark.parametrize("given", ["hippocampus", "4.5", ""])
def test_other_text_is_refused(given):
    with pytest.raises(UsageError, match="is not a dataset; give its number, like 4"):
        maybe_convert_to_dataset_name(given)


@pytest.mark.parametrize("given", ["Dataset001_A/../../x", "Dataset001_A\\..\\x", "Dataset\0"])
def test_paths_are_refused(given):
    with pytest.raises(UsageError, match="cannot be the name of a dataset"):
        maybe_convert_to_dataset_name(given)


@pytest.mark.parametrize(
    ("name", "number"), [("Dataset004_Hippocampus", 4), ("Dataset123", 123), ("Dataset1000_B", 1000)]
)
def test_number_of_a_name(name, number):
    assert convert_dataset_name_to_id(name) == number


def test_name_without_number_is_refused():
    with pytest.raises(UsageError, match="'Task004_X' is not a dataset name"):
        convert_dataset_name_to_id("Task004_X")

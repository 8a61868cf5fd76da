"""Cross-validation splits and what is wrong with those of users."""

from __future__ import annotations

import json

import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.training.dataloading.splits import load_or_create_splits, read_or_generate_splits, select_fold

CASES = [f"case_{number:03d}" for number in range(6)]


@pytest.fixture
def splits(tmp_path):
    return load_or_create_splits(tmp_path, CASES)


@pytest.mark.oracle
@pytest.mark.parametrize("dataset", ["Dataset901_Syn2DRGB", "Dataset902_Syn3DAnisoCT", "Dataset904_SynIgnore"])
def test_new_splits_equal_upstream(oracle_recorded, tmp_path, dataset):
    recorded = json.loads((oracle_recorded / "preprocessed" / dataset / "splits_final.json").read_text())
    cases = {case for fold in recorded for case in fold["train"] + fold["val"]}
    assert load_or_create_splits(tmp_path, sorted(cases, reverse=True)) == recorded


def test_first_fold_of_six_cases(splits):
    assert splits[0] == {"train": ["case_000", "case_001", "case_002", "case_004"], "val": ["case_003", "case_005"]}


def test_each_case_is_validated_once(splits):
    assert sorted(case for fold in splits for case in fold["val"]) == CASES


def test_written_splits_are_read_again(tmp_path, splits, caplog):
    caplog.set_level("INFO")
    own = [{"train": CASES[:5], "val": CASES[5:]}]
    assert json.loads((tmp_path / "splits_final.json").read_text()) == splits
    (tmp_path / "splits_final.json").write_text(json.dumps(own))
    for _ in range(2):  # for training and for validation
        assert load_or_create_splits(tmp_path, CASES) == own
    assert caplog.text.count("Using the 1 splits of") == 1


def test_only_the_splits_file_is_written(tmp_path, splits):
    assert [path.name for path in tmp_path.iterdir()] == ["splits_final.json"]


def test_too_few_cases_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"of 1 training case cannot be split into 5 folds; .* \(fold all\)$"):
        load_or_create_splits(tmp_path, CASES[:1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    ["[]", '{"train": []}', '[{"train": ["a"]}]', '[{"train": ["a"], "val": "b"}]', '[{"train": [1], "val": []}]'],
)
def test_a_file_of_another_form_is_refused(tmp_path, content):
    (tmp_path / "splits_final.json").write_text(content)
    with pytest.raises(DataError, match="splits_final.json must be a list with a"):
        load_or_create_splits(tmp_path, CASES)


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "splits_final.json").write_text('[{"train": ')
    with pytest.raises(DataError, match=r"splits_final.json is not valid JSON \(line 1: .*delete it"):
        load_or_create_splits(tmp_path, CASES)


def test_a_fold_is_its_split(splits):
    assert select_fold(splits, 2, CASES) == (splits[2]["train"], splits[2]["val"])


def test_fold_all_trains_and_validates_on_everything():
    assert select_fold([], "all", CASES) == (CASES, CASES)


@pytest.mark.parametrize("fold", [5, 7, -1, "some"])
def test_a_fold_that_is_not_there_is_refused(splits, fold):
    with pytest.raises(UsageError, match=f"no fold {fold}: the folds are 0, 1, 2, 3, 4 and all; .*splits_final.json"):
        select_fold(splits, fold, CASES)


def test_unknown_cases_are_refused():
    with pytest.raises(DataError, match=r"not preprocessed \(2: other, patient\)"):
        select_fold([{"train": [*CASES[:3], "patient"], "val": ["other"]}], 0, CASES)


def test_validation_on_training_cases_is_refused():
    with pytest.raises(DataError, match=r"both for training and for validation \(1: case_002\)"):
        select_fold([{"train": CASES[:3], "val": CASES[2:]}], 0, CASES)


def test_a_fold_without_validation_cases_is_refused():
    with pytest.raises(DataError, match="has 6 training and 0 validation cases"):
        select_fold([{"train": CASES, "val": []}], 0, CASES)


def test_splits_can_be_known_before_they_are_written(tmp_path):
    known = read_or_generate_splits(tmp_path, CASES)
    assert list(tmp_path.iterdir()) == []
    assert load_or_create_splits(tmp_path, CASES) == known == read_or_generate_splits(tmp_path, CASES[:-1])

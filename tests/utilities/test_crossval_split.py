"""Splits that keep groups of cases together, and names that look like visits of patients."""

from __future__ import annotations

import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.crossval_split import generate_crossval_split, groups_of, separated_groups
from nnunetv2.utilities.patient_names import visits_of_patients

CASES = [f"p{patient:02d}_{visit}" for patient in range(9) for visit in range(1 + patient % 3)]


def test_groups_stay_together_and_folds_are_balanced():
    groups = groups_of(CASES, "^p[0-9]+")
    splits = generate_crossval_split(CASES, n_splits=3, groups=groups)
    assert sorted(case for split in splits for case in split["val"]) == CASES
    assert [len(split["val"]) for split in splits] == [6, 6, 6]  # of 18 cases: three groups each of 1, 2 and 3
    assert separated_groups(splits, groups) == []
    for split in splits:
        assert split["train"] == [case for case in CASES if case not in split["val"]]


def test_groups_of_one_are_upstreams_folds():
    assert generate_crossval_split(CASES, groups=groups_of(CASES, ".*")) == generate_crossval_split(CASES)


def test_folds_are_those_of_scikit_learn():
    from sklearn.model_selection import KFold

    cases = [f"case_{number:02}" for number in range(23)]
    folds = KFold(n_splits=5, shuffle=True, random_state=12345).split(cases)
    expected = [{"train": [cases[i] for i in train], "val": [cases[i] for i in val]} for train, val in folds]
    assert generate_crossval_split(cases) == expected


def test_the_split_depends_on_the_seed_only():
    groups = groups_of(CASES, "^p[0-9]+")
    first, again, other = (generate_crossval_split(CASES, seed, 3, groups) for seed in (1, 1, 2))
    assert first == again != other


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(DataError, match=r"of 2 groups \(3 training cases\) cannot .* 5 folds; .*--num_folds 2"):
        generate_crossval_split(["a1", "a2", "b1"], groups=groups_of(["a1", "a2", "b1"], "^."))


def test_groups_are_named_by_the_first_group_of_the_pattern():
    cases = ["x_a_1", "x_a_2", "x_b_1", "other", "a"]
    expected = {"x_a_1": "a", "x_a_2": "a", "x_b_1": "b", "other": "other", "a": "a"}
    assert groups_of(cases, "^x_(.)") == expected


def test_cases_that_belong_together_join_their_groups():
    cases = ["a1", "a2", "b1", "c1", "d1"]
    groups = groups_of(cases, "^.", [["a2", "b1"], ["c1", "gone"]])
    assert groups == {"a1": "a", "a2": "a", "b1": "a", "c1": "c", "d1": "d"}


def test_a_pattern_without_a_match_is_refused():
    with pytest.raises(UsageError, match="'visit' matches none of the cases, such as a1"):
        groups_of(["a1", "a2"], "visit")


def test_separated_groups_are_named_once_with_an_example():
    splits = [{"train": ["a1", "b1"], "val": ["a2", "c1"]}, {"train": ["a2", "c1"], "val": ["a1", "b1"]}]
    groups = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    assert separated_groups(splits, groups) == [(0, "a1", "a2")]


@pytest.mark.parametrize(
    ("cases", "patients"),
    [
        (["patient_01_visit1", "patient_01_visit2", "patient_02"], ["patient_01", "patient_01", "patient_02"]),
        (["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_T1w"], ["sub-01", "sub-01", "sub-02"]),
        (["P12_L", "P12_R", "P13_L"], ["P12", "P12", "P13"]),
        (["7a", "7b", "8a"], ["7", "7", "8"]),
        (["17_20200131", "17_20210131", "18_20200131"], ["17", "17", "18"]),
        (
            ["BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-GLI-00006-100"],
            ["BraTS-GLI-00005"] * 2 + ["BraTS-GLI-00006"],
        ),
        (["vol3_slice001", "vol3_slice002", "vol4_slice001"], ["vol3", "vol3", "vol4"]),
    ],
)
def test_visits_of_patients_are_recognised(cases, patients):
    pattern, groups = visits_of_patients(cases)
    assert [groups[case] for case in cases] == patients
    assert groups_of(cases, pattern) == groups


@pytest.mark.parametrize(
    "cases",
    [
        [f"case_{number:03d}" for number in range(20)],
        [f"hippocampus_{number:03d}" for number in range(20)],
        [f"BRATS_{number:03d}" for number in range(20)],
        [f"scan{number}" for number in range(20)],
        [f"2020_{number:03d}" for number in range(50)] + [f"2021_{number:03d}" for number in range(50)],
        ["liver_left", "liver_right", "spleen_left"],
    ],
)
def test_other_names_are_not_taken_for_patients(cases):
    assert visits_of_patients(cases) is None

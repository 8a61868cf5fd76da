from __future__ import annotations

import pytest

from nnunetv2.errors import DataError
from nnunetv2.utilities.channel_files import check_channel_files, check_channels_of_file, check_numbering

MODEL = ["T1", "T2", "FLAIR"]


def numbered(*numbers: int) -> list[str]:
    return [f"folder/a_{number:04d}.nii.gz" for number in numbers]


@pytest.mark.parametrize("files", [numbered(0, 1, 2), numbered(0), ["x.png"], ["x.nii.gz", "y.nii.gz", "z_0001"]])
def test_whole_cases_are_accepted(files: list[str]) -> None:
    check_channel_files(files, MODEL)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (numbered(1), r"a has no _0000 \(T1\), _0002 \(FLAIR\); 3 channels are needed \(T1, T2, FLAIR\)"),
        (numbered(1, 2), r"a has no _0000 \(T1\);"),
        (numbered(0, 1, 3), r"a has no _0002 \(FLAIR\) and has _0003, which is no channel of the model"),
        (numbered(0, 1, 2, 3), r"^a has _0003, which is no channel of the model"),
        (numbered(1, 0, 2), "a comes with its channels in the order _0001, _0000, _0002"),
        (["x.nii.gz", "y.nii.gz"], r"x\.nii\.gz comes with 2 files; 3 channels are needed"),
    ],
)
def test_missing_and_unexpected_channels_are_named(files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_channel_files(files, MODEL)


def test_the_only_channel_must_be_the_first() -> None:
    with pytest.raises(DataError, match=r"a has no _0000 \(CT\) and has _0001.*one channel is needed \(CT\)"):
        check_channel_files(numbered(1), ["CT"])


def test_a_single_file_must_hold_all_channels() -> None:
    check_channels_of_file("a_0000.png", 3, MODEL)
    with pytest.raises(DataError, match=r"a has no _0001 \(T2\), _0002 \(FLAIR\)"):
        check_channels_of_file("a_0000.nii.gz", 1, MODEL)
    with pytest.raises(DataError, match=r"a_0000\.png has 4 channels; 3 channels are needed"):
        check_channels_of_file("a_0000.png", 4, MODEL)


def test_numbering_of_training_cases_has_no_gap() -> None:
    check_numbering(numbered(0, 1))
    for files in (numbered(1), numbered(1, 2)):
        with pytest.raises(DataError, match=r"Case a has a_0001\.nii\.gz but no a_0000\.nii\.gz"):
            check_numbering(files)
    with pytest.raises(DataError, match=r"Case a has a_0002\.nii\.gz but no a_0001\.nii\.gz"):
        check_numbering(numbered(0, 2))

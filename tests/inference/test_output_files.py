"""Which files of a folder are predicted."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2.errors import DataError
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.inference.output_files import find_cases

OTHERS = NaturalImage2DIO.input_file_endings


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def test_pictures_of_other_formats_are_cases_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "b_0000.png", "a_0000.JPG", "c_0000.tiff", "c_0001.tiff", "notes.jpg", "d_0000.txt")
    cases = find_cases(folder, tmp_path / "out", ".png", other_endings=OTHERS)
    files = {case.name: [Path(image).name for image in case.images] for case in cases}
    assert files == {"a": ["a_0000.JPG"], "b": ["b_0000.png"], "c": ["c_0000.tiff", "c_0001.tiff"]}
    assert [case.output for case in cases] == [str(tmp_path / "out" / name) for name in "abc"]
    assert [case.name for case in find_cases(folder, tmp_path / "out", ".png")] == ["b"]


def test_files_with_the_ending_of_the_dataset_come_first(tmp_path: Path) -> None:
    """A folder may hold previews beside its images."""
    folder = folder_of(tmp_path, "a_0000.png", "a_0000.jpg")
    (case,) = find_cases(folder, None, ".png", other_endings=OTHERS)
    assert [Path(image).name for image in case.images] == ["a_0000.png"]


def test_two_files_of_one_channel_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a_0000.jpg", "a_0000.tif")
    with pytest.raises(DataError, match=r"a_0000.tif and .*a_0000.jpg are the same channel of one case"):
        find_cases(folder, None, ".png", other_endings=OTHERS)

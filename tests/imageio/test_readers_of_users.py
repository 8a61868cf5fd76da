"""Readers in folders of `nnUNet_extensions`: found by name and by ending, run only if they are chosen."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder_simple
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import (
    determine_reader_writer_from_dataset_json,
    determine_reader_writer_from_file_ending,
    known_file_endings,
    recursive_find_reader_writer_by_name,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.training.tiny_dataset import tiny_plans

READER = """
    import numpy as np

    from nnunetv2.errors import DataError
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter, register_reader


    @register_reader("{name}")
    class {name}(BaseReaderWriter):
        supported_file_endings = {endings}

        def read_images(self, image_fnames):
            try:
                channels = [np.load(path) for path in image_fnames]
            except ValueError as err:
                raise DataError(f"no array: {{err}}") from err
            return np.stack(channels)[:, None].astype(np.float32), {{"spacing": (999, 1, 1)}}

        def read_seg(self, seg_fname):
            return self.read_images((seg_fname,))

        def write_seg(self, seg, output_fname, properties):
            np.save(output_fname, seg[0])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, named by the variable; what its files change in the interpreter is undone."""
    found = tmp_path / "mine"
    found.mkdir()
    monkeypatch.setenv("nnUNet_extensions", str(found))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write_reader(folder: Path, name: str = "ArrayIO", endings: str = '[".npy"]', more: str = "") -> None:
    (folder / f"{name.lower()}.py").write_text(textwrap.dedent(READER.format(name=name, endings=endings)) + more)


def test_an_ending_that_no_reader_here_takes_is_read_by_that_of_the_user(folder, tmp_path):
    write_reader(folder)
    image = tmp_path / "a_0000.npy"
    np.save(image, np.zeros((4, 5)))
    for example in (None, str(image)):
        reader = determine_reader_writer_from_file_ending(".NPY", example, allow_nonmatching_filename=True)
        assert reader.__name__ == "ArrayIO"


def test_readers_here_come_first_and_that_of_a_user_is_not_run(folder):
    write_reader(folder, endings='[".png", ".nii.gz"]', more="raise RuntimeError('was run')")
    assert determine_reader_writer_from_file_ending(".png") is NaturalImage2DIO
    assert determine_reader_writer_from_file_ending(".nii.gz") is SimpleITKIO


def test_a_file_that_no_reader_here_can_read_is_left_to_that_of_the_user(folder, tmp_path):
    write_reader(folder, endings='[".png"]')
    image = tmp_path / "a_0000.png"
    with image.open("wb") as file:
        np.save(file, np.zeros((4, 5)))
    assert determine_reader_writer_from_file_ending(".png", str(image)).__name__ == "ArrayIO"
    image.write_bytes(b"text")
    with pytest.raises(DataError, match="No reader can read .*NaturalImage2DIO: .*ArrayIO: no array"):
        determine_reader_writer_from_file_ending(".png", str(image))


def test_dataset_json_and_plans_name_it(folder):
    write_reader(folder, endings="[]")
    content = {"overwrite_image_reader_writer": "ArrayIO", "file_ending": ".npy"}
    assert determine_reader_writer_from_dataset_json(content).__name__ == "ArrayIO"
    plans = PlansManager({**tiny_plans(), "image_reader_writer": "ArrayIO"})
    assert plans.image_reader_writer_class.__name__ == "ArrayIO"


def test_a_missing_reader_says_which_variable_to_set(monkeypatch):
    monkeypatch.delenv("nnUNet_extensions", raising=False)
    plans = PlansManager({**tiny_plans(), "image_reader_writer": "ArrayIO"})
    with pytest.raises(UsageError, match=r"named 'ArrayIO' in .* \(or in the folders named by nnUNet_extensions\)"):
        _ = plans.image_reader_writer_class
    with pytest.raises(DataError, match=r"'.npy'; convert .* into a folder that nnUNet_extensions names"):
        determine_reader_writer_from_file_ending(".npy")


def test_its_ending_is_known_and_folders_are_evaluated(folder, tmp_path):
    write_reader(folder)
    assert ".npy" in known_file_endings()
    segmentation = np.array([[0, 1], [1, 1]])
    for name in ("references", "predictions"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", segmentation)
    summary = compute_metrics_on_folder_simple(
        str(tmp_path / "references"), str(tmp_path / "predictions"), [1], num_processes=1
    )
    assert summary["foreground_mean"]["Dice"] == 1


def test_an_ending_that_is_computed_is_rejected(folder):
    write_reader(folder, endings='[".n" + "py"]')
    with pytest.raises(UsageError, match="supported_file_endings of ArrayIO must be a list of literals"):
        determine_reader_writer_from_file_ending(".npy")


def test_a_reader_is_registered_by_the_name_of_its_class(folder):
    write_reader(folder, more='\n\n@register_reader("Other")\nclass Renamed(ArrayIO): pass\n')
    with pytest.raises(UsageError, match="arrayio.py, line .*; register Renamed by that name, not 'Other'"):
        determine_reader_writer_from_file_ending(".npy")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "def write_seg",
            "def write",
            r"arrayio.py, line 8: ArrayIO must define write_seg\(self, seg, output_fname, pr",
        ),
        ("properties):", "**rest):", r"ArrayIO.write_seg\(self, seg, output_fname, rest\) must accept the arguments"),
        ("supported_file_endings", "endings", r"arrayio.py, line 8: ArrayIO must set supported_file_endings, such as"),
        ("(BaseReaderWriter)", "", "arrayio.py, line 8: ArrayIO must be a class that derives from BaseReaderWriter of"),
        ('[".npy"]', '".npy"', r"ArrayIO.supported_file_endings is '.npy'; it must be a list of endings with their"),
        ('[".npy"]', '["npy"]', r"ArrayIO.supported_file_endings is \['npy'\]; it must be a list of endings"),
        ("import numpy as np", "import numpyy as np", "arrayio.py, line 2: ModuleNotFoundError: .*numpyy'; correct"),
    ],
)
def test_a_reader_that_is_wrong_is_rejected_when_it_is_chosen(folder, old, new, message):
    write_reader(folder)
    file = folder / "arrayio.py"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UsageError, match=message):
        recursive_find_reader_writer_by_name("ArrayIO")
    assert determine_reader_writer_from_file_ending(".png") is NaturalImage2DIO  # which does without it


def test_a_reader_that_is_not_registered_must_be_complete_too(folder):
    write_reader(folder)
    file = folder / "arrayio.py"
    file.write_text(file.read_text().replace('@register_reader("ArrayIO")\n', ""))
    assert recursive_find_reader_writer_by_name("ArrayIO").__name__ == "ArrayIO"
    with pytest.raises(DataError, match=r"arrayio.py, line 8: the class ArrayIO is not registered; put @register_rea"):
        determine_reader_writer_from_file_ending(".npy")
    (folder / "half.py").write_text(file.read_text().replace("ArrayIO", "HalfIO").replace("read_seg", "read"))
    with pytest.raises(UsageError, match=r"half.py: HalfIO must define read_seg\(self, seg_fname\)"):
        recursive_find_reader_writer_by_name("HalfIO")


def test_a_name_that_is_taken_is_rejected_when_it_is_chosen(folder):
    write_reader(folder)
    (folder / "more.py").write_text((folder / "arrayio.py").read_text())
    with pytest.raises(UsageError, match=r"reader 'ArrayIO' is registered by .*arrayio.py and by .*more.py; give one"):
        determine_reader_writer_from_file_ending(".npy")
    with pytest.raises(UsageError, match=r"reader 'ArrayIO' is registered by .*arrayio.py and by .*more.py; give one"):
        recursive_find_reader_writer_by_name("ArrayIO")
    assert determine_reader_writer_from_file_ending(".png") is NaturalImage2DIO
    write_reader(folder, name="NibabelIO", endings='[".other"]')
    with pytest.raises(UsageError, match="nibabelio.py: NibabelIO is the name of a reader of nnU-Net; give the class"):
        determine_reader_writer_from_file_ending(".other")


def test_a_file_that_worker_processes_could_not_import_is_rejected(folder):
    write_reader(folder)
    (folder / "arrayio.py").rename(folder / "io.py")
    with pytest.raises(
        UsageError, match="io.py, line 8: Python has another module called io; give the reader's file another"
    ):
        determine_reader_writer_from_file_ending(".npy")

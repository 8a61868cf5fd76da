"""Readers in folders of `nnUNet_extensions`: found by name and by ending, run only if they are chosen."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder_simple, read_pair
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import (
    determine_reader_writer_from_dataset_json,
    determine_reader_writer_from_file_ending,
    known_file_endings,
    recursive_find_reader_writer_by_name,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.protocol.hashes import fingerprint_hash
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


DATASET = "Dataset072_Arrays"


@pytest.fixture
def arrays(folder: Path, nnunet_folders: dict[str, Path]) -> Path:
    """A raw dataset of four images of 12 x 10 pixels in .npy files, and its reader."""
    write_reader(folder)
    raw = nnunet_folders["nnUNet_raw"] / DATASET
    for number in range(4):
        labels = np.zeros((12, 10), dtype=np.uint8)
        labels[2:8, 3:9] = 1
        for path, array in (
            (raw / "imagesTr" / f"a{number}_0000.npy", labels * (number + 2.0) + 1),
            (raw / "labelsTr" / f"a{number}.npy", labels),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
    description = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "blob": 1},
        "numTraining": 4,
        "file_ending": ".npy",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    return raw


def change(folder: Path, old: str, new: str) -> None:
    """Change the reader's file, as a user does between two commands."""
    file = folder / "arrayio.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    sys.modules.pop("arrayio", None)
    importlib.invalidate_caches()
    for cache in folder.rglob("*.pyc"):
        cache.unlink()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[:, None]",
            "",
            r"read_images returned an array of shape \(1, 12, 10\) for .*a0_0000.npy; .* \(channels, z, ",
        ),
        (
            "[:, None].astype(np.float32)",
            "[:, None].tolist()",
            "read_images returned a list for .*; it must return an a",
        ),
        (
            "[:, None].astype(np.float32)",
            "[:, None].astype(str)",
            "read_images returned an array of <U.* an array of n",
        ),
        ('"spacing": (999, 1, 1)', "", r'returned the spacing None for .*; it must return properties \{"spacing": \('),
        ("(999, 1, 1)", "(1, 1)", r"returned the spacing \(1, 1\) for .*three lengths above 0 in mm"),
        ("(999, 1, 1)", "(999, 0, 1)", r"returned the spacing \(999, 0, 1\) for"),
        (', {"spacing": (999, 1, 1)}', "", "returned a ndarray for .*; it must return an array and its properties"),
        (
            "return self.read_images((seg_fname,))",
            "return self.read_images((seg_fname, seg_fname))",
            r"read_seg returned an array of shape \(2, 1, 12, 10\) for .*a0.npy; it must return one channel: \(1, z",
        ),
    ],
)
def test_what_a_reader_returns_is_checked_before_anything_is_planned(arrays, folder, old, new, message):
    change(folder, old, new)
    with pytest.raises(UsageError, match=rf"arrayio.py: ArrayIO\..*{message}"):
        verify_dataset_integrity(str(arrays), 1)
    with pytest.raises(UsageError, match=rf"arrayio.py: ArrayIO\..*{message}"):
        DatasetFingerprintExtractor(72, num_processes=1).run()


def test_what_a_reader_returns_is_checked_in_preprocessing_and_evaluation(arrays, folder):
    change(folder, "[:, None]", "")
    files = [str(arrays / "imagesTr" / "a0_0000.npy")]
    reader = recursive_find_reader_writer_by_name("ArrayIO")
    plans = PlansManager({**tiny_plans(), "image_reader_writer": "ArrayIO"})
    with pytest.raises(UsageError, match=r"ArrayIO.read_images returned an array of shape \(1, 12, 10\)"):
        DefaultPreprocessor(verbose=False).run_case(files, None, plans, plans.get_configuration("2d"), {})
    with pytest.raises(UsageError, match=r"ArrayIO.read_seg returned an array of shape \(1, 12, 10\)"):
        read_pair(files[0], files[0], reader())


def test_a_fingerprint_is_kept_while_its_reader_is_the_same(arrays, folder, caplog):
    first = DatasetFingerprintExtractor(72, num_processes=1).run()
    assert first["image_reader"]["name"] == "ArrayIO" and first["spacings"][0] == [999, 1, 1]
    assert fingerprint_hash(first) == fingerprint_hash({**first, "image_reader": None})
    change(folder, "(999, 1, 1)", "(999, 2, 2)")
    changed = DatasetFingerprintExtractor(72, num_processes=1).run()
    assert changed["spacings"][0] == [999, 2, 2]
    assert "is computed again: it was made by the reader ArrayIO, whose file has changed since" in caplog.text
    caplog.clear()
    assert DatasetFingerprintExtractor(72, num_processes=1).run() == changed
    assert "computed again" not in caplog.text


def test_a_fingerprint_of_another_reader_or_without_its_axes_is_computed_again(arrays, nnunet_folders, caplog):
    path = nnunet_folders["nnUNet_preprocessed"] / DATASET / "dataset_fingerprint.json"
    right = DatasetFingerprintExtractor(72, num_processes=1).run()
    for wrong, reason in (
        ({**right, "shapes_after_crop": [[12, 10]] * 4}, '"shapes_after_crop" is [[12, 10]'),
        ({**right, "image_reader": {**right["image_reader"], "name": "Other"}}, "made by the reader Other"),
        ({key: value for key, value in right.items() if key != "image_reader"}, "by a reader of nnU-Net or an unknown"),
    ):
        path.write_text(json.dumps(wrong))
        assert DatasetFingerprintExtractor(72, num_processes=1).run() == right
        assert json.loads(path.read_text()) == right
        assert reason in caplog.text

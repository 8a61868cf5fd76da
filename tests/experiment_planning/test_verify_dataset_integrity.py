from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.verify_dataset_integrity import (
    check_cases,
    verify_dataset_integrity,
    verify_labels,
)
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from tests.experiment_planning.tiny_dataset import write_tiny_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_tiny_dataset(tmp_path)


def change_json(folder: Path, /, **changes) -> None:
    content = {**json.loads((folder / "dataset.json").read_text()), **changes}
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(content))


def change_image(path: Path, change) -> None:
    """Applies `change(image)`, which returns an image or changes the one it gets."""
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(change(image) or image, str(path))


def with_array(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    return changed


def with_value(value: float, dtype: type):
    def change(image: sitk.Image) -> sitk.Image:
        array = sitk.GetArrayFromImage(image).astype(dtype)
        array[2, 3, 3] = value
        return with_array(image, array)

    return change


def test_usable_dataset_passes_and_is_left_as_it_is(dataset, caplog):
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO):
        verify_dataset_integrity(str(dataset), 1)
    assert "no problem in 4 training cases" in caplog.text
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_label_with_background_only_is_a_warning(dataset, caplog):
    verify_dataset_integrity(str(dataset), 1)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"case_3: no voxel but background (label 0): {dataset / 'labelsTr' / 'case_3.nii.gz'}"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numTraining": 5}, "numTraining in dataset.json is 5, but 4 training cases"),
        ({"numTraining": "4"}, "\"numTraining\" is '4'; .* without quotes: 4"),
        ({"file_ending": None}, 'no key "file_ending"'),
        ({"channel_names": None, "modality": {"0": "CT"}}, "4 problems.*2 channels instead of 1"),
        ({"channel_names": None}, 'no key "channel_names"'),
        ({"labels": {"background": 0, "organ": 1, "lesion": 3}}, "without gaps"),
        ({"labels": {"background": 0, "organ": [1, 3], "lesion": 3}, "regions_class_order": [1, 3]}, "without gaps"),
        ({"channel_names": {"0": "CT"}}, "4 problems.*2 channels instead of 1"),
        ({"labels": {"background": 0, "organ": 1}}, r"3 problems in the 4 .*unexpected labels 2 \(4 voxels\)"),
    ],
)
def test_wrong_description_is_refused(dataset, changes, message):
    change_json(dataset, **changes)
    with pytest.raises(DataError, match=message):
        verify_dataset_integrity(str(dataset), 1)


@pytest.mark.parametrize("missing", ["dataset.json", "labelsTr/case_1.nii.gz"])
def test_missing_file_is_named(dataset, missing):
    (dataset / missing).unlink()
    with pytest.raises(DataError, match=missing):
        verify_dataset_integrity(str(dataset), 1)


def test_missing_folder_is_named(dataset):
    (dataset / "imagesTr").rename(dataset / "images")
    with pytest.raises(DataError, match="no folder imagesTr"):
        verify_dataset_integrity(str(dataset), 1)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (9, np.uint8, r"unexpected labels 9 \(1 voxels\); dataset.json names \[0, 1, 2\]: .*case_1.nii.gz"),
        (-1, np.int16, r"unexpected labels -1 \(1 voxels\)"),
        (0.5, np.float32, r"unexpected labels 0.5 \(1 voxels\).*; labels must be whole numbers"),
        (np.nan, np.float32, "1 voxels are NaN or infinite; .*labelsTr/case_1.nii.gz"),
    ],
)
def test_wrong_labels_are_found(dataset, value, dtype, message):
    change_image(dataset / "labelsTr" / "case_1.nii.gz", with_value(value, dtype))
    with pytest.raises(DataError, match=message):
        verify_dataset_integrity(str(dataset), 1)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_found(dataset, reader, value):
    change_json(dataset, overwrite_image_reader_writer=reader)
    change_image(dataset / "imagesTr" / "case_2_0000.nii.gz", with_value(value, np.float32))
    with pytest.raises(DataError, match="1 voxels are NaN or infinite; .*case_2_0000.nii.gz"):
        verify_dataset_integrity(str(dataset), 1)


def shifted(image: sitk.Image) -> None:
    image.SetOrigin((1.0, 2.0, 3.0))


def rotated(image: sitk.Image) -> None:
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))


def stretched(image: sitk.Image) -> None:
    image.SetSpacing((0.8, 0.8, 9.0))


def cropped(image: sitk.Image) -> sitk.Image:
    return with_array(image[1:, :, :], sitk.GetArrayFromImage(image)[:, :, 1:])


@pytest.mark.parametrize(
    ("change", "message", "can_be_allowed"),
    [
        (shifted, "origin .* mm against .* mm: images", True),
        (rotated, "direction .* against .*: images", True),
        (stretched, "spacings differ", False),
        (cropped, r"shapes differ, \(9, 13, 12\) against \(9, 13, 11\) voxels", False),
    ],
)
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_label_on_another_grid_is_found(dataset, reader, change, message, can_be_allowed, caplog):
    change_json(dataset, overwrite_image_reader_writer=reader)
    change_image(dataset / "labelsTr" / "case_1.nii.gz", change)
    with pytest.raises(DataError, match=message):
        verify_dataset_integrity(str(dataset), 1)
    if can_be_allowed:
        caplog.clear()
        verify_dataset_integrity(str(dataset), 1, allow_geometry_mismatch=True)
        assert "case_1: " in caplog.text
    else:
        with pytest.raises(DataError, match=message):
            verify_dataset_integrity(str(dataset), 1, allow_geometry_mismatch=True)


def test_allowing_another_geometry_is_suggested_only_where_it_helps(dataset):
    change_image(dataset / "labelsTr" / "case_1.nii.gz", shifted)
    with pytest.raises(DataError, match="--allow_geometry_mismatch"):
        verify_dataset_integrity(str(dataset), 1)
    change_image(dataset / "labelsTr" / "case_2.nii.gz", with_value(9, np.uint8))
    with pytest.raises(DataError) as refused:
        verify_dataset_integrity(str(dataset), 1)
    assert "--allow_geometry_mismatch" not in str(refused.value)


def test_all_problems_are_logged(dataset, caplog):
    for case in (0, 1):
        change_image(dataset / "labelsTr" / f"case_{case}.nii.gz", with_value(7, np.uint8))
    (dataset / "imagesTr" / "case_2_0001.nii.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="3 problems in the 4 training cases"):
        verify_dataset_integrity(str(dataset), 1)
    logged = [record.message.split(":")[0] for record in caplog.records if record.levelno == logging.ERROR]
    assert logged == ["case_0", "case_1", "case_2"]


@pytest.mark.parametrize(
    "identifier",
    ["../out", "..\\out", "/etc/x", "a/b", "a\x00b", "..", ".", "", "x" * 300, "a\nb"],
)
def test_case_names_that_leave_the_folder_are_refused(dataset, identifier):
    files = {"images": ["imagesTr/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
    change_json(dataset, dataset={identifier: files}, numTraining=1, channel_names={"0": "CT"})
    with pytest.raises(DataError, match="name of a case"):
        verify_dataset_integrity(str(dataset), 1)


def test_listed_files_may_lie_anywhere(dataset, tmp_path):
    moved = tmp_path / "elsewhere"
    (dataset / "imagesTr").rename(moved)
    files = {"images": [os.path.join("..", "elsewhere", "case_0_0000.nii.gz")], "label": "labelsTr/case_0.nii.gz"}
    change_json(dataset, dataset={"one": files}, numTraining=1, channel_names={"0": "CT"})
    verify_dataset_integrity(str(dataset), 1)
    (moved / "case_0_0000.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 2 files are missing: .*case_0_0000.nii.gz"):
        verify_dataset_integrity(str(dataset), 1)


def test_the_ignore_label_is_expected(dataset):
    change_json(dataset, labels={"background": 0, "organ": 1, "ignore": 2})
    verify_dataset_integrity(str(dataset), 1)


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_single_checks_answer_with_true_or_false(dataset, reader):
    images = [str(dataset / "imagesTr" / f"case_0_000{channel}.nii.gz") for channel in (0, 1)]
    label = str(dataset / "labelsTr" / "case_0.nii.gz")
    assert verify_labels(label, reader, [0, 1, 2]) and not verify_labels(label, reader, [0, 1])
    assert check_cases(images, label, 2, reader) and not check_cases(images, label, 3, reader)


def picture_dataset(folder: Path, images: list[str], labels: list[str]) -> Path:
    """A dataset of one listed case, with 6 x 5 pictures and masks of 0 and 255 under these names."""
    content = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "vessel": 1}}
    target = folder / "Dataset071_Vessels"
    for part, names in (("imagesTr", images), ("labelsTr", labels)):
        (target / part).mkdir(parents=True)
        for name in names:
            pixels = np.random.default_rng(len(name)).integers(0, 2, (6, 5, 3)).astype(np.uint8) * 255
            Image.fromarray(pixels if part == "imagesTr" else pixels[..., 0]).save(target / part / name)
    dataset_json = {**content, "numTraining": 1, "file_ending": ".png"}
    (target / "dataset.json").write_text(json.dumps(dataset_json))
    return target


IMPORT = "nnUNetv2_import_images"


def test_pictures_as_they_are_downloaded_name_the_command_that_imports_them(tmp_path: Path) -> None:
    jpeg = picture_dataset(tmp_path / "1", ["a_0000.jpg", "b_0000.jpg"], ["a.png"])
    with pytest.raises(DataError, match=rf"2 files with another ending \(.jpg\), such as a_0000.jpg; {IMPORT}"):
        verify_dataset_integrity(str(jpeg), 1)
    suffix = picture_dataset(tmp_path / "2", ["21_0000.png"], ["21_manual1.gif"])
    with pytest.raises(DataError, match=rf"missing: .*21.png \(21_manual1.gif is there; {IMPORT} pairs such names"):
        verify_dataset_integrity(str(suffix), 1)
    white = picture_dataset(tmp_path / "3", ["a_0000.png"], ["a.png"])
    with pytest.raises(DataError, match=rf"unexpected labels 255 .*; {IMPORT} makes labels of masks of 0 and 255"):
        verify_dataset_integrity(str(white), 1)
    (white / "dataset.json").unlink()
    with pytest.raises(DataError, match=rf"There is no dataset.json in .*; {IMPORT} -d NUMBER -n NAME -i PICTURES"):
        verify_dataset_integrity(str(white), 1)
    Image.fromarray(np.zeros((6, 5), np.uint8)).save(white / "labelsTr" / "a.png")
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(6, 5)).save(white / "imagesTr" / "a_0000.png")
    (white / "dataset.json").write_text((suffix / "dataset.json").read_text())
    with pytest.raises(DataError, match=rf"1 channels instead of 3 \({IMPORT} gives all pictures the same channels\)"):
        verify_dataset_integrity(str(white), 1)

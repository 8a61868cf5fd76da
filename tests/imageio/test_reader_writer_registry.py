import subprocess
import sys

import nibabel
import numpy as np
import pytest
import tifffile

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.reader_writer_registry import (
    determine_reader_writer_from_dataset_json,
    determine_reader_writer_from_file_ending,
    reader_of_training_cases,
    recursive_find_reader_writer_by_name,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO


@pytest.mark.parametrize(
    ("ending", "reader"),
    [
        (".png", NaturalImage2DIO),
        (".bmp", NaturalImage2DIO),
        (".tif", NaturalImage2DIO),
        (".tiff", Tiff3DIO),
        (".nii.gz", SimpleITKIO),
        (".NII.GZ", SimpleITKIO),
        (".nrrd", SimpleITKIO),
        (".mha", SimpleITKIO),
        (".gipl", SimpleITKIO),
        (".nii", NibabelIO),
    ],
)
def test_ending_alone_chooses_the_first_reader(ending, reader):
    assert determine_reader_writer_from_file_ending(ending) is reader


def test_example_decides_between_readers_of_one_ending(tmp_path):
    path = tmp_path / "a_0000.tif"
    tifffile.imwrite(path, np.zeros((5, 20, 30), np.uint8))
    assert determine_reader_writer_from_file_ending(".tif", str(path)) is Tiff3DIO
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8))
    assert determine_reader_writer_from_file_ending(".tif", str(path)) is NaturalImage2DIO


def write_nifti(path, affine=None, shape=(4, 5, 6)):
    array = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.set_qform(None, 0)
    nibabel.save(image, path)
    return str(path)


@pytest.mark.parametrize("damage", ["header", "content", "empty"])
def test_damaged_first_file_does_not_choose_another_reader(tmp_path, damage):
    paths = [write_nifti(tmp_path / f"a{number}_0000.nii.gz") for number in range(3)]
    content = bytearray((tmp_path / "a0_0000.nii.gz").read_bytes())
    content[12 if damage == "header" else -20] ^= 255
    (tmp_path / "a0_0000.nii.gz").write_bytes(b"" if damage == "empty" else content)
    assert determine_reader_writer_from_file_ending(".nii.gz", paths) is SimpleITKIO
    with pytest.raises(DataError, match="No reader can read .*a0_0000.nii.gz. SimpleITKIO: .*a0.* NibabelIO: .*a0"):
        determine_reader_writer_from_file_ending(".nii.gz", paths[0])


def test_one_sheared_file_chooses_a_reader_for_all(tmp_path, caplog):
    sheared = np.eye(4)
    sheared[0, 1] = 0.15
    paths = [write_nifti(tmp_path / f"a{number}_0000.nii.gz", sheared if number == 2 else None) for number in range(4)]
    assert determine_reader_writer_from_file_ending(".nii.gz", paths) is NibabelIO
    assert "All images are read by NibabelIO, because SimpleITKIO cannot read all of them: " in caplog.text
    assert "a2_0000.nii.gz is sheared" in caplog.text
    with pytest.raises(DataError, match='is sheared: .*"overwrite_image_reader_writer": "NibabelIO".* or resample'):
        SimpleITKIO().read_images([paths[2]])


def test_labels_count_as_well(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.15
    cases = {
        name: {
            "images": [write_nifti(tmp_path / f"{name}_0000.nii.gz")],
            "label": write_nifti(tmp_path / f"{name}.nii.gz", sheared if name == "b" else None),
        }
        for name in "abc"
    }
    assert reader_of_training_cases({"file_ending": ".nii.gz"}, cases) is NibabelIO
    cases["b"]["label"] = cases["a"]["label"]
    assert reader_of_training_cases({"file_ending": ".nii.gz"}, cases) is SimpleITKIO


def test_most_files_choose_between_slices_and_stacks(tmp_path):
    paths = [str(tmp_path / f"a{number}_0000.tif") for number in range(3)]
    for number, path in enumerate(paths):
        tifffile.imwrite(path, np.zeros((5, 20, 30) if number else (20, 30), np.uint8))
    assert determine_reader_writer_from_file_ending(".tif", paths) is Tiff3DIO


def test_no_reader_for_an_ending_lists_the_endings():
    with pytest.raises(DataError, match="no reader for files that end in '.jpg'; convert them to .bmp, .gipl, .mha"):
        determine_reader_writer_from_file_ending(".jpg")


def test_example_that_nobody_can_read_lists_the_reasons(tmp_path):
    path = tmp_path / "a_0000.tif"
    path.write_text("text")
    with pytest.raises(DataError, match="No reader can read .*a_0000.tif. NaturalImage2DIO: .*Tiff3DIO: "):
        determine_reader_writer_from_file_ending(".tif", str(path))


def test_other_readers_are_tried_on_demand(tmp_path):
    path = str(tmp_path / "a_0000.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 7, 8), np.uint8), np.eye(4)), path)
    with pytest.raises(DataError, match="There is no reader for files that end in '.x'"):
        determine_reader_writer_from_file_ending(".x", path)
    assert determine_reader_writer_from_file_ending(".x", path, allow_nonmatching_filename=True) is SimpleITKIO


@pytest.mark.parametrize("name", ["NibabelIOWithReorient", "SimpleITKIOWithReorient", "Tiff3DIO"])
def test_dataset_json_may_choose_the_reader(name):
    content = {"overwrite_image_reader_writer": name, "file_ending": ".nii.gz"}
    assert determine_reader_writer_from_dataset_json(content).__name__ == name


@pytest.mark.parametrize("content", [{}, {"overwrite_image_reader_writer": "None"}])
def test_without_choice_the_ending_decides(content):
    assert determine_reader_writer_from_dataset_json({**content, "file_ending": ".nii.gz"}) is SimpleITKIO


def test_unknown_choice_is_reported_and_the_ending_decides(caplog):
    content = {"overwrite_image_reader_writer": "NibabelIo", "file_ending": ".nii.gz"}
    assert determine_reader_writer_from_dataset_json(content) is SimpleITKIO
    assert "overwrite_image_reader_writer is not used" in caplog.text
    assert "did you mean NibabelIO" in caplog.text


def test_dataset_json_without_ending_is_refused():
    with pytest.raises(DataError, match='no key "file_ending"'):
        determine_reader_writer_from_dataset_json({})


def test_reader_is_found_by_name():
    assert recursive_find_reader_writer_by_name("NibabelIOWithReorient") is NibabelIOWithReorient
    assert recursive_find_reader_writer_by_name("SimpleITKIOWithReorient") is SimpleITKIOWithReorient
    with pytest.raises(UsageError, match="There is no image reader/writer named 'JpegIO'"):
        recursive_find_reader_writer_by_name("JpegIO")


def test_choosing_a_reader_does_not_import_image_libraries():
    code = (
        "import sys, nnunetv2.imageio.reader_writer_registry as r; r.determine_reader_writer_from_file_ending('.png');"
        "sys.exit(bool({'SimpleITK', 'nibabel', 'skimage', 'tifffile', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

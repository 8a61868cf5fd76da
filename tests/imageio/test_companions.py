"""Files that belong to an image travel with it."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunetv2.errors import DataError
from nnunetv2.imageio.companions import copy_image
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

LABELS = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies"


def write_tif(path: Path) -> None:
    tifffile.imwrite(path, LABELS)
    path.with_suffix(".json").write_text('{"spacing": [3, 0.5, 0.5]}')


@pytest.mark.parametrize("name", ["case.tif", "other.tif"])
def test_spacing_of_a_tiff_gets_the_name_of_the_copy(tmp_path: Path, target: Path, name: str) -> None:
    write_tif(tmp_path / "case.tif")
    copy_image(Tiff3DIO(), tmp_path / "case.tif", target / name)
    labels, properties = Tiff3DIO().read_seg(str(target / name))
    np.testing.assert_array_equal(labels[0], LABELS)
    assert properties == {"spacing": [3, 0.5, 0.5]}


def test_spacing_is_found_for_images_and_label_maps(tmp_path: Path) -> None:
    write_tif(tmp_path / "case.tif")
    os.rename(tmp_path / "case.tif", tmp_path / "case_0001.tif")
    assert Tiff3DIO().companion_files(str(tmp_path / "case_0001.tif")) == [str(tmp_path / "case.json")]
    write_tif(tmp_path / "label.tif")
    assert Tiff3DIO().read_images([str(tmp_path / "label.tif")])[1] == {"spacing": [3, 0.5, 0.5]}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".hdr"])
def test_voxels_of_a_detached_header_are_copied(tmp_path: Path, target: Path, ending: str, compressed: bool) -> None:
    path = tmp_path / f"case{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(path), compressed and ending != ".hdr")
    copy_image(SimpleITKIO(), path, target / path.name)
    assert len(os.listdir(target)) == 2
    np.testing.assert_array_equal(SimpleITKIO().read_seg(str(target / path.name))[0][0], LABELS)


def test_detached_voxels_cannot_get_another_name(tmp_path: Path, target: Path) -> None:
    """A second case whose voxels have the same name would overwrite them."""
    sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(tmp_path / "label.mhd"))
    with pytest.raises(DataError, match=r"label.mhd keeps its voxels in label.raw, .* write both as one file"):
        copy_image(SimpleITKIO(), tmp_path / "label.mhd", target / "case.mhd")
    assert os.listdir(target) == []


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_detached_header_is_written_with_its_voxels(tmp_path: Path, ending: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(tmp_path / "a_0000.mha"))
    _, properties = SimpleITKIO().read_images([str(tmp_path / "a_0000.mha")])
    for _ in range(2):  # the second replaces the first
        SimpleITKIO().write_seg(LABELS, str(tmp_path / f"case{ending}"), properties)
    np.testing.assert_array_equal(SimpleITKIO().read_seg(str(tmp_path / f"case{ending}"))[0][0], LABELS)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert len(os.listdir(tmp_path)) == 3


def test_newer_copies_are_kept(tmp_path: Path, target: Path) -> None:
    write_tif(tmp_path / "case.tif")
    copy_image(Tiff3DIO(), tmp_path / "case.tif", target / "case.tif")
    (target / "case.json").unlink()  # as in folders of older versions
    before = (target / "case.tif").stat().st_ino
    copy_image(Tiff3DIO(), tmp_path / "case.tif", target / "case.tif", only_if_newer=True)
    assert (target / "case.json").is_file()
    assert (target / "case.tif").stat().st_ino == before


def test_missing_files_are_named(tmp_path: Path, target: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(tmp_path / "case.mhd"))
    (tmp_path / "case.raw").unlink()
    with pytest.raises(DataError, match=r"There is no .*case\.raw, which belongs to .*case\.mhd"):
        copy_image(SimpleITKIO(), tmp_path / "case.mhd", target / "case.mhd")
    with pytest.raises(DataError, match=r"There is no image file .*absent\.png"):
        copy_image(NaturalImage2DIO(), tmp_path / "absent.png", target / "absent.png")

"""What every reader and writer of images must do, whatever the format."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io as skimage_io

from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

# Neither symmetric nor the identity, so that a wrong order of axes or a lost flip shows.
AFFINE = np.array([[0, 0, 3.0, 12], [-0.5, 0, 0, 7.5], [0, 0.75, 0, -4], [0, 0, 0, 1.0]])


def write_nifti(path, array):
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), AFFINE), path)


def write_itk(path, array):
    image = sitk.GetImageFromArray(array if array.shape[0] > 1 else array[0])
    dimension = image.GetDimension()
    image.SetSpacing((0.5, 0.75, 3.0)[:dimension])
    image.SetOrigin((-12.0, 4.0, 2.5)[:dimension])
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1) if dimension == 3 else (0, -1, 1, 0))
    sitk.WriteImage(image, str(path), True)


def write_tif(path, array):
    tifffile.imwrite(path, array)
    (path.parent / f"{path.stem[:-5]}.json").write_text('{"spacing": [3, 0.75, 0.5]}')


def write_natural(path, array):
    skimage_io.imsave(path, array[0], check_contrast=False)


# reader, ending, function that writes an image the reader's own way, spatial shape
FORMATS = {
    "SimpleITKIO nii.gz": (SimpleITKIO, ".nii.gz", write_nifti, (6, 5, 4)),
    "SimpleITKIO nrrd": (SimpleITKIO, ".nrrd", write_itk, (6, 5, 4)),
    "SimpleITKIO mha": (SimpleITKIO, ".mha", write_itk, (6, 5, 4)),
    "SimpleITKIO mha 2-D": (SimpleITKIO, ".mha", write_itk, (1, 5, 4)),
    "SimpleITKIOWithReorient nii.gz": (SimpleITKIOWithReorient, ".nii.gz", write_nifti, (6, 5, 4)),
    "NibabelIO nii.gz": (NibabelIO, ".nii.gz", write_nifti, (6, 5, 4)),
    "NibabelIO nii": (NibabelIO, ".nii", write_nifti, (6, 5, 4)),
    "NibabelIOWithReorient nii.gz": (NibabelIOWithReorient, ".nii.gz", write_nifti, (6, 5, 4)),
    "Tiff3DIO tif": (Tiff3DIO, ".tif", write_tif, (6, 5, 4)),
    "NaturalImage2DIO png": (NaturalImage2DIO, ".png", write_natural, (1, 5, 4)),
    "NaturalImage2DIO bmp": (NaturalImage2DIO, ".bmp", write_natural, (1, 5, 4)),
    "NaturalImage2DIO tif": (NaturalImage2DIO, ".tif", write_natural, (1, 5, 4)),
}


@pytest.fixture(params=FORMATS)
def case(request, tmp_path):
    """A reader, and a case of two channels in a folder of its own."""
    reader, ending, write, shape = FORMATS[request.param]
    random = np.random.default_rng(0)
    paths = []
    for channel in range(2):
        path = tmp_path / f"case_{channel:04d}{ending}"
        write(path, random.integers(0, 256, shape, dtype=np.uint8))
        paths.append(str(path))
    return reader(), paths, ending, write, shape


def test_image_is_float32_with_channels_first(case):
    reader, paths, _, _, shape = case
    data, properties = reader.read_images(paths)
    assert isinstance(reader, BaseReaderWriter)
    assert data.dtype == np.float32
    assert data.shape[0] == 2
    assert sorted(data.shape[1:]) == sorted(shape)
    assert len(properties["spacing"]) == 3
    if shape[0] == 1:
        assert properties["spacing"][0] >= 999 * max(properties["spacing"][1:])


def test_channels_are_in_the_order_of_the_files(case):
    reader, paths, _, _, _ = case
    both, _ = reader.read_images(paths)
    for channel, path in enumerate(paths):
        alone, _ = reader.read_images((path,))
        np.testing.assert_array_equal(both[channel : channel + 1], alone)


@pytest.mark.parametrize("highest", [3, 254, 255, 1000])
def test_written_labels_lie_on_their_image(case, tmp_path, highest):
    reader, paths, ending, _, _ = case
    if ending == ".bmp" and highest > 254:
        pytest.skip("BMP has no 16-bit images")
    data, properties = reader.read_images(paths)
    labels = np.random.default_rng(1).integers(0, highest, data.shape[1:])
    labels.flat[0] = highest
    target = tmp_path / "out" / f"case{ending}"
    target.parent.mkdir()
    reader.write_seg(labels, str(target), properties)
    read, read_properties = reader.read_seg(str(target))
    np.testing.assert_array_equal(read, labels[None])
    assert read.dtype == np.float32
    assert list(read_properties["spacing"]) == pytest.approx(list(properties["spacing"]))
    assert set(os.listdir(target.parent)) - {"case.json"} == {target.name}


def test_geometry_of_written_labels_is_the_images(case, tmp_path):
    reader, paths, ending, _, _ = case
    if isinstance(reader, (NaturalImage2DIO, Tiff3DIO)):
        pytest.skip("the format knows no geometry")
    data, properties = reader.read_images(paths)
    target = str(tmp_path / f"out{ending}")
    reader.write_seg((data[0] > 100).astype(np.uint8), target, properties)
    image, labels = sitk.ReadImage(paths[0]), sitk.ReadImage(target)
    assert labels.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), sitk.GetArrayFromImage(image) > 100)
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, geometry)(), getattr(image, geometry)(), atol=1e-6)


def test_labels_keep_their_file_when_writing_fails(case, tmp_path):
    reader, paths, ending, _, _ = case
    _, properties = reader.read_images(paths)
    target = tmp_path / f"out{ending}"
    target.write_bytes(b"old")
    with pytest.raises(Exception):  # noqa: B017 - what is raised depends on the library
        reader.write_seg(np.array([[["no labels"]]]), str(target), properties)
    assert target.read_bytes() == b"old"
    assert not [name for name in os.listdir(tmp_path) if "tmp" in name]


@pytest.mark.parametrize("fraction", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated_image_is_refused(case, fraction):
    reader, paths, _, _, _ = case
    with open(paths[1], "rb") as file:
        whole = file.read()
    with open(paths[1], "wb") as file:
        file.write(whole[: int(len(whole) * fraction)])
    with pytest.raises(DataError, match="case_0001"):
        reader.read_images(paths)


def test_missing_image_is_named(case):
    reader, paths, _, _, _ = case
    os.remove(paths[1])
    with pytest.raises(DataError, match="There is no image file .*case_0001"):
        reader.read_images(paths)


def test_file_of_another_format_is_named(case):
    reader, paths, _, _, _ = case
    with open(paths[0], "w") as file:
        file.write("Lorem ipsum dolor sit amet " * 50)
    with pytest.raises(DataError, match="case_0000"):
        reader.read_images(paths)


def test_channels_of_different_shape_are_refused(case):
    reader, paths, _, write, shape = case
    write(Path(paths[1]), np.zeros((shape[0], shape[1] + 1, shape[2]), np.uint8))
    with pytest.raises(DataError, match="different shapes: .* in .*case_0000.*, .* in .*case_0001.*; resample"):
        reader.read_images(paths)

import gzip
import os
import struct
import time

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
from nnunetv2.imageio.nifti_integrity import check_nifti, read_nifti_header
from nnunetv2.imageio.nonfinite_voxels import count_nonfinite_voxels
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

NIFTI_READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]


def nifti(path, shape=(4, 5, 6), affine=None, kind=nibabel.Nifti1Image, dtype=np.int16):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    nibabel.save(kind(array, np.diag([0.5, 0.75, 3, 1]) if affine is None else affine), path)
    return str(path)


@pytest.mark.parametrize("reader", NIFTI_READERS)
def test_four_dimensional_nifti_is_refused(tmp_path, reader):
    path = nifti(tmp_path / "a_0000.nii.gz", (4, 5, 6, 2))
    with pytest.raises(DataError, match=r"a_0000.nii.gz has 4 axes of sizes \[4, 5, 6, 2\]; .* at most three"):
        reader().read_images([path])


@pytest.mark.parametrize("reader", NIFTI_READERS)
def test_trailing_axes_of_length_1_are_dropped(tmp_path, reader):
    path = nifti(tmp_path / "a_0000.nii.gz", (4, 5, 6, 1))
    data, properties = reader().read_images([path])
    assert data.shape == (1, 6, 5, 4)
    reader().write_seg(data[0].astype(np.uint8), str(tmp_path / "out.nii.gz"), properties)
    assert nibabel.load(tmp_path / "out.nii.gz").shape == (4, 5, 6)


@pytest.mark.parametrize("reader", NIFTI_READERS)
def test_channels_with_different_spacing_are_refused(tmp_path, reader):
    paths = [nifti(tmp_path / f"a_{i:04d}.nii.gz", affine=np.diag([0.5, 0.75, 3 + i / 100, 1])) for i in range(2)]
    with pytest.raises(DataError, match=r"different voxel spacings: \[3.0, 0.75, 0.5\] in .*a_0000.*3.01"):
        reader().read_images(paths)


@pytest.mark.parametrize("reader", NIFTI_READERS)
def test_channels_at_different_places_are_refused_unless_allowed(tmp_path, reader, monkeypatch, caplog):
    shifted = np.diag([0.5, 0.75, 3, 1.0])
    shifted[0, 3] = 0.1
    paths = [nifti(tmp_path / "a_0000.nii.gz"), nifti(tmp_path / "a_0001.nii.gz", affine=shifted)]
    with pytest.raises(
        DataError, match="lie differently in space: .*a_0000.*a_0001.*set nnUNet_allow_geometry_mismatch=1"
    ):
        reader().read_images(paths)
    monkeypatch.setenv("nnUNet_allow_geometry_mismatch", "1")
    data, _ = reader().read_images(paths)
    assert data.shape[0] == 2
    assert "lie differently in space" in caplog.text


def test_channels_with_different_direction_are_refused(tmp_path):
    turned = np.array([[0.0, -0.75, 0, 0], [0.5, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    paths = [nifti(tmp_path / "a_0000.nii.gz"), nifti(tmp_path / "a_0001.nii.gz", affine=turned)]
    with pytest.raises(DataError, match="lie differently in space: direction"):
        SimpleITKIO().read_images(paths)


def test_rounding_of_the_origin_is_no_difference(tmp_path):
    shifted = np.diag([0.5, 0.75, 3, 1.0])
    shifted[:3, 3] = 5e-4
    paths = [nifti(tmp_path / "a_0000.nii.gz"), nifti(tmp_path / "a_0001.nii.gz", affine=shifted)]
    assert SimpleITKIO().read_images(paths)[0].shape[0] == 2


def test_vector_images_are_refused(tmp_path):
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((6, 5, 4, 3), np.uint8), isVector=True), str(tmp_path / "a_0000.mha")
    )
    with pytest.raises(DataError, match="3 values per voxel; nnU-Net reads one channel"):
        SimpleITKIO().read_images([str(tmp_path / "a_0000.mha")])


def test_slices_have_no_orientation_to_change(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4), np.uint8)), str(tmp_path / "a_0000.mha"))
    with pytest.raises(DataError, match="a_0000.mha is a 2-D image, .* use the reader SimpleITKIO"):
        SimpleITKIOWithReorient().read_images([str(tmp_path / "a_0000.mha")])


def test_truncated_gipl_is_refused(tmp_path):
    path = tmp_path / "a_0000.gipl"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 5, 4), np.uint16)), str(path))
    assert SimpleITKIO().read_images([str(path)])[0].shape == (1, 6, 5, 4)
    whole = path.read_bytes()
    for length in (100, 256, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="a_0000.gipl"):
            SimpleITKIO().read_images([str(path)])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_whole_files_raise_no_alarm(tmp_path, ending, kind, dtype, full):
    path = nifti(tmp_path / f"a{ending}", kind=kind, dtype=dtype)
    check_nifti(path, full=full)
    assert read_nifti_header(path).shape == (4, 5, 6)


def test_header_is_read_in_both_byte_orders(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), ">i2"), np.eye(4), header)
    nibabel.save(image, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(">i", 348)
    check_nifti(tmp_path / "a.nii")


def test_several_gzip_members_are_one_file(tmp_path):
    plain = nifti(tmp_path / "a.nii", (20, 20, 20))
    with open(plain, "rb") as file:
        content = file.read()
    joined = tmp_path / "b.nii.gz"
    joined.write_bytes(b"".join(gzip.compress(content[i : i + 5000]) for i in range(0, len(content), 5000)))
    check_nifti(joined)
    joined.write_bytes(b"".join(gzip.compress(content[i : i + 5000]) for i in range(0, 10000, 5000)))
    with pytest.raises(DataError, match="b.nii.gz is cut off: its header announces 16352 bytes"):
        check_nifti(joined)


def test_full_check_finds_flipped_bits(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", (20, 20, 20))
    with open(path, "rb") as file:
        whole = bytearray(file.read())
    random = np.random.default_rng(0)
    found = 0
    for position in random.integers(20, len(whole) - 8, 50):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.integers(8)
        with open(path, "wb") as file:
            file.write(damaged)
        try:
            check_nifti(path, full=True)
        except DataError:
            found += 1
    assert found >= 49


def test_huge_announced_shape_is_refused_before_memory_is_taken(tmp_path):
    path = nifti(tmp_path / "a.nii")
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1))
    for reader in (SimpleITKIO, NibabelIO):
        start = time.monotonic()
        with pytest.raises(DataError, match="announces 27000000000000 voxels .* set nnUNet_max_voxels=27000000000000"):
            reader().read_images([path])
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("shape", [(0, 1, 1), (-3, 5, 5)])
def test_impossible_header_is_refused(tmp_path, shape):
    path = nifti(tmp_path / "a.nii")
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(struct.pack("<4h", 3, *shape))
    with pytest.raises(DataError, match="a.nii has an impossible NIfTI header"):
        check_nifti(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_voxels_are_counted_in_the_file(tmp_path, value, ending):
    """SimpleITK reads them as 0, so its array cannot be asked."""
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 1, :2] = value
    path = str(tmp_path / f"a{ending}")
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    data, _ = SimpleITKIO().read_images([path])
    assert np.isfinite(data).all()
    assert count_nonfinite_voxels(path) == count_nonfinite_voxels(path, data) == 2


def test_nonfinite_voxels_of_other_formats_are_counted_in_the_array(tmp_path):
    assert count_nonfinite_voxels(nifti(tmp_path / "a.nii.gz")) == 0
    assert count_nonfinite_voxels("a.mha", np.array([np.nan, np.inf, 1.0])) == 2
    assert count_nonfinite_voxels("a.png") == 0


def test_colours_become_channels(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    skimage_io.imsave(tmp_path / "a_0000.png", rgb, check_contrast=False)
    data, properties = NaturalImage2DIO().read_images([str(tmp_path / "a_0000.png")])
    np.testing.assert_array_equal(data, rgb.transpose(2, 0, 1)[:, None])
    assert properties == {"spacing": (999, 1, 1)}
    with pytest.raises(DataError, match="is a colour image with 3 channels; a label map has one"):
        NaturalImage2DIO().read_seg(str(tmp_path / "a_0000.png"))


def test_stack_of_slices_is_no_natural_image(tmp_path):
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((6, 5, 7), np.uint8))
    with pytest.raises(DataError, match=r"a_0000.tif has shape \[6, 5, 7\]; a 2-D image has shape"):
        NaturalImage2DIO().read_images([str(tmp_path / "a_0000.tif")])


@pytest.mark.parametrize("reader", [NaturalImage2DIO, Tiff3DIO])
@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_tiff_whose_pages_form_a_circle_is_refused(tmp_path, reader, is_big, target):
    path = tmp_path / "a_0000.tif"
    pages = np.zeros((3, 5, 7), np.uint8)
    tifffile.imwrite(path, pages, bigtiff=is_big, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        starts = [page.offset for page in file.pages]
    form, count_bytes, tag_bytes = ("<Q", 8, 20) if is_big else ("<I", 2, 12)
    content = bytearray(path.read_bytes())
    num_tags = int.from_bytes(content[starts[2] : starts[2] + count_bytes], "little")
    next_page = starts[2] + count_bytes + num_tags * tag_bytes
    assert struct.unpack_from(form, content, next_page) == (0,)
    struct.pack_into(form, content, next_page, starts[target])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a_0000\.tif is damaged: its page tables overlap, or lead back"):
        reader().read_images([str(path)])


def test_tiff_with_overlapping_page_tables_is_refused(tmp_path):
    content = bytearray(b"II*\0" + struct.pack("<I", 8) + bytes(72))
    for start, num_tags, following in ((8, 5, 12), (12, 4, 16), (16, 3, 0)):  # each inside the one before
        struct.pack_into("<H", content, start, num_tags)
        struct.pack_into("<I", content, start + 2 + 12 * num_tags, following)
    path = tmp_path / "a_0000.tif"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a_0000\.tif is damaged"):
        Tiff3DIO().read_images([str(path)])


def test_tiff_without_spacing_has_1_and_says_so(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((2, 5, 7), np.uint8))
    _, properties = Tiff3DIO().read_images([str(tmp_path / "a_0000.tif")])
    assert properties == {"spacing": (1, 1, 1)}
    assert "no" in caplog.text
    assert str(tmp_path / "a.json") in caplog.text


@pytest.mark.parametrize(
    "content", ['{"spacing": [1, 2]}', '{"spacing": [1, 2, 0]}', '{"spacing": "x"}', "[1, 2, 3]", "{}"]
)
def test_wrong_spacing_beside_a_tiff_is_refused(tmp_path, content):
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((2, 5, 7), np.uint8))
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match="a.json must hold three positive numbers"):
        Tiff3DIO().read_images([str(tmp_path / "a_0000.tif")])


def test_other_endings_are_no_tiff(tmp_path):
    with pytest.raises(DataError, match="a_0000.png is not a TIFF file; the endings are .tif, .tiff"):
        Tiff3DIO().read_images(["a_0000.png"])


def test_labels_need_three_axes(tmp_path):
    _, properties = SimpleITKIO().read_images([nifti(tmp_path / "a_0000.nii.gz")])
    with pytest.raises(ValueError, match=r"must have axes \(Z, Y, X\), .* got shape \(5, 4\)"):
        SimpleITKIO().write_seg(np.zeros((5, 4)), str(tmp_path / "x.nii.gz"), properties)
    assert not os.path.exists(tmp_path / "x.nii.gz")


def test_helpers_for_other_readers_compare_with_the_first():
    assert BaseReaderWriter._check_all_same([(1, 2)])
    assert BaseReaderWriter._check_all_same([(1, 2), [1, 2 + 1e-9]])
    assert not BaseReaderWriter._check_all_same([(1, 2), (1, 3)])
    assert not BaseReaderWriter._check_all_same([(1, 2), (1, 2, 3)])
    assert BaseReaderWriter._check_all_same_array([np.eye(2), np.eye(2)])
    assert not BaseReaderWriter._check_all_same_array([np.eye(2), np.eye(3)])

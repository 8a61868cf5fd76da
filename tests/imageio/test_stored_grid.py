"""A segmentation that a reader writes lies on the grid of its image, and one that was moved does not."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.stored_grid import grid_of_image, grid_of_segmentation
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

SHAPE = (5, 6, 7)  # x, y, z
# Oblique, with axes permuted and mirrored: what reorienting readers change and restore.
ROTATION = np.array([[0.0, 0.0, -1.0], [-0.6, 0.8, 0.0], [0.8, 0.6, 0.0]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = ROTATION * [0.7, 1.1, 2.5]
AFFINE[:3, 3] = [-12.5, 100.25, 7.0]

NIFTI_READERS = (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)


def write_nifti(path: Path, shape: tuple[int, ...] = SHAPE) -> str:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = nib.Nifti1Image(values, AFFINE)
    image.set_qform(AFFINE)
    nib.save(image, path)
    return str(path)


def differences(reader: BaseReaderWriter, image: str, segmentation: str) -> list[str]:
    values, properties = reader.read_seg(segmentation)
    return grid_of_segmentation(segmentation, values, properties, reader).differences(grid_of_image([image], reader))


def segmented(reader: BaseReaderWriter, image: str, output: Path) -> str:
    values, properties = reader.read_images([image])
    reader.write_seg((values[0] > 50).astype(np.uint8), str(output), properties)
    return str(output)


@pytest.mark.parametrize("reader", NIFTI_READERS)
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 1), (5, 6, 1)], ids=["3d", "trailing axis", "one slice"])
def test_written_segmentations_lie_on_the_grid(
    reader: type[BaseReaderWriter], shape: tuple[int, ...], tmp_path: Path
) -> None:
    image = write_nifti(tmp_path / "a_0000.nii.gz", shape)
    assert differences(reader(), image, segmented(reader(), image, tmp_path / "a.nii.gz")) == []


@pytest.mark.parametrize("reader", NIFTI_READERS)
@pytest.mark.parametrize("fault", ["shape", "spacing", "origin", "direction"])
def test_a_moved_segmentation_does_not(reader: type[BaseReaderWriter], fault: str, tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "a_0000.nii.gz")
    path = segmented(reader(), image, tmp_path / "a.nii.gz")
    stored = nib.load(path)
    values, affine = np.asarray(stored.dataobj).copy(), stored.affine.copy()
    if fault == "shape":
        values = values[:, 1:]
    elif fault == "origin":
        affine[1, 3] += 0.01
    else:
        affine[:3, 1] *= {"spacing": 1.001, "direction": -1}[fault]
    Path(path).unlink()
    moved = nib.Nifti1Image(values, affine)
    moved.set_qform(affine)
    nib.save(moved, path)
    found = differences(reader(), image, path)
    assert any(text.startswith(fault) for text in found), found


def test_zooms_that_contradict_the_affine_do_not_matter(tmp_path: Path) -> None:
    """nibabel writes the zooms of the affine, so a prediction has others than such an image."""
    path = write_nifti(tmp_path / "a_0000.nii.gz")
    image = nib.load(path)
    image.header["pixdim"][1:4] = [3.0, 3.0, 3.0]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "b_0000.nii.gz")
    image = str(tmp_path / "b_0000.nii.gz")
    assert nib.load(image).header.get_zooms() == (3.0, 3.0, 3.0)
    assert differences(NibabelIO(), image, segmented(NibabelIO(), image, tmp_path / "b.nii.gz")) == []


def test_formats_without_a_cheap_header_are_read(tmp_path: Path) -> None:
    import tifffile
    from PIL import Image

    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(tmp_path / "a_0000.png")
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((7, 6, 5), np.float32))
    (tmp_path / "a.json").write_text('{"spacing": [2, 1, 1]}')
    for reader, ending in ((NaturalImage2DIO(), ".png"), (Tiff3DIO(), ".tif")):
        image = str(tmp_path / f"a_0000{ending}")
        path = segmented(reader, image, tmp_path / f"a{ending}")
        assert differences(reader, image, path) == []
        values, properties = reader.read_seg(path)
        reader.write_seg(values[0, :, 1:], path, properties)
        assert differences(reader, image, path)[0].startswith("shape")

"""NIfTI images read with nibabel, with the axis order of SimpleITK."""

from __future__ import annotations

import gzip
import logging
from typing import TYPE_CHECKING

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.channel_grid import (
    ORIGIN_TOLERANCE,
    as_smallest_label_type,
    naming,
    require_positive_spacing,
    require_same_geometry,
    require_same_spacing,
    stack_channels,
)
from nnunetv2.imageio.nifti_integrity import check_nifti

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20


class NibabelIO(BaseReaderWriter):
    """3D images; one channel per file.

    The property `nibabel_stuff` holds `original_affine`, which maps voxel indices (x, y, z) to mm.
    """

    supported_file_endings = [".nii", ".nii.gz"]

    def check_header(self, image_fname: str) -> None:
        with naming(image_fname):
            check_nifti(image_fname)

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        data, spacing, affine = _read([_load(path) for path in image_fnames], image_fnames)
        return data, {"nibabel_stuff": {"original_affine": affine}, "spacing": spacing}

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        return self.read_images((seg_fname,))

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        _write(_labels_with_affine(seg, properties["nibabel_stuff"]["original_affine"]), output_fname)


class NibabelIOWithReorient(BaseReaderWriter):
    """3D images, reoriented to RAS on reading; label maps are reoriented back on writing.

    The property `nibabel_stuff` holds `original_affine`, that of the file, and `reoriented_affine`, that of the array.
    """

    supported_file_endings = [".nii", ".nii.gz"]

    def check_header(self, image_fname: str) -> None:
        with naming(image_fname):
            check_nifti(image_fname)

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        from nibabel.orientations import io_orientation

        originals = [_load(path) for path in image_fnames]
        turned = [
            _in_memory(image, image.get_fdata()).as_reoriented(io_orientation(image.affine)) for image in originals
        ]
        data, spacing, affine = _read(turned, image_fnames)
        affines = {"original_affine": originals[0].affine, "reoriented_affine": affine}
        return data, {"nibabel_stuff": affines, "spacing": spacing}

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        return self.read_images((seg_fname,))

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

        affines = properties["nibabel_stuff"]
        labels = _labels_with_affine(seg, affines["reoriented_affine"])
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(affines["original_affine"]))
        restored = labels.as_reoriented(back)
        if not np.allclose(restored.affine, affines["original_affine"]):
            logger.warning("%s lies differently in space than its image: the affine was not restored", output_fname)
        _write(restored, output_fname)


def _load(path: str) -> Nifti1Image:
    """Read one file as an image with three axes; it holds its voxels as float64."""
    import nibabel

    with naming(path):
        header = check_nifti(path)
        kind = nibabel.Nifti2Image if header.is_version_2 else nibabel.Nifti1Image
        image = _load_gzip(path, kind) if header.gzip_end else nibabel.load(path)
        voxels = image.get_fdata()
    if voxels.ndim == 3:
        return image
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise DataError(f"{path} has shape {list(image.shape)}; this reader is for images with three axes")
    return _in_memory(image, voxels)


def _load_gzip(path: str, kind: type[Nifti1Image]) -> Nifti1Image:
    """Read to the end of the file, where the checksum is: nibabel stops behind the last voxel."""
    from nibabel.fileholders import FileHolder

    with gzip.open(path, "rb") as stream:
        image = kind.from_file_map({"image": FileHolder(path, stream)})
        image.get_fdata()  # the image keeps the voxels
        while stream.read(_CHUNK):
            pass
    return image


def _in_memory(image: Nifti1Image, voxels: np.ndarray) -> Nifti1Image:
    return type(image)(voxels, image.affine, image.header)


def _read(images: list[Nifti1Image], paths: list[str] | tuple[str, ...]) -> tuple[np.ndarray, list[float], np.ndarray]:
    """Combine the images to an array (C, Z, Y, X), with its spacing and affine."""
    arrays = [image.get_fdata().transpose(2, 1, 0)[None] for image in images]
    spacings = [[float(length) for length in reversed(image.header.get_zooms())] for image in images]
    data = stack_channels(arrays, paths)
    require_same_spacing(spacings, paths)
    require_positive_spacing(spacings[0], paths[0])
    require_same_geometry([image.affine for image in images], paths, "affine", ORIGIN_TOLERANCE)
    return data, spacings[0], images[0].affine


def _labels_with_affine(seg: np.ndarray, affine: np.ndarray) -> Nifti1Image:
    import nibabel

    return nibabel.Nifti1Image(as_smallest_label_type(seg.transpose(2, 1, 0)), affine=affine)


def _write(image: Nifti1Image, path: str) -> None:
    import nibabel

    with replace_when_complete(path) as temporary:
        nibabel.save(image, temporary)

"""NIfTI, NRRD, MetaImage and GIPL images, read with SimpleITK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.channel_grid import (
    DIRECTION_TOLERANCE,
    ORIGIN_TOLERANCE,
    as_smallest_label_type,
    naming,
    require_same_geometry,
    require_same_spacing,
    stack_channels,
)
from nnunetv2.imageio.gipl_integrity import check_gipl
from nnunetv2.imageio.nifti_integrity import check_nifti, is_nifti

if TYPE_CHECKING:
    import SimpleITK as sitk

# Third spacing of a 2D image, relative to its largest one: so large that no planner treats that axis as in-plane.
_SLICE_SPACING_FACTOR = 999


class SimpleITKIO(BaseReaderWriter):
    """2D and 3D images; one channel per file.

    The property `sitk_stuff` holds spacing, origin and direction in SimpleITK's order (x, y, z); the property `spacing`
    is in array order.
    """

    supported_file_endings = [".nii.gz", ".nrrd", ".mha", ".gipl"]

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        return _read([_load(path) for path in image_fnames], image_fnames)

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        return self.read_images((seg_fname,))

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        _write(_labels_on_grid(seg, properties["sitk_stuff"]), output_fname)


class SimpleITKIOWithReorient(SimpleITKIO):
    """3D images, reoriented on reading; label maps are reoriented back on writing."""

    def read_images(
        self, image_fnames: list[str] | tuple[str, ...], orientation: str = "RAS"
    ) -> tuple[np.ndarray, dict]:
        """Like `SimpleITKIO`; `orientation` names the target directions of the axes x, y, z in DICOM notation."""
        import SimpleITK as sitk

        originals = [_load(path) for path in image_fnames]
        for image, path in zip(originals, image_fnames, strict=True):
            if image.GetDimension() != 3:
                raise DataError(
                    f"{path} is a 2-D image, which has no orientation to change; use the reader SimpleITKIO"
                )
        data, properties = _read([sitk.DICOMOrient(image, orientation) for image in originals], image_fnames)
        of_first = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(originals[0].GetDirection())
        properties["sitk_stuff"]["original_orientation"] = of_first
        return data, properties

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        import SimpleITK as sitk

        geometry = properties["sitk_stuff"]
        _write(sitk.DICOMOrient(_labels_on_grid(seg, geometry), geometry["original_orientation"]), output_fname)


def _load(path: str) -> sitk.Image:
    """Read one file as a scalar image with two or three axes."""
    import SimpleITK as sitk

    with naming(path):
        if is_nifti(path):
            check_nifti(path)
        elif str(path).lower().endswith(".gipl"):
            check_gipl(path)
        image = sitk.ReadImage(str(path))
    # Some files store a 3D image with trailing axes of length 1.
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    if image.GetDimension() not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{path} has size {list(image.GetSize())} and {image.GetNumberOfComponentsPerPixel()} values per voxel; "
            f"nnU-Net reads one channel of at most three axes per file: write each channel as CASE_0000, CASE_0001, ..."
        )
    return image


def _read(images: list[sitk.Image], paths: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
    import SimpleITK as sitk

    spacings = [_spacing_zyx(image) for image in images]
    arrays = [sitk.GetArrayViewFromImage(image) for image in images]
    data = stack_channels([array.reshape((1,) * (4 - array.ndim) + array.shape) for array in arrays], paths)
    require_same_spacing(spacings, paths)
    require_same_geometry([image.GetOrigin() for image in images], paths, "origin", ORIGIN_TOLERANCE)
    require_same_geometry([image.GetDirection() for image in images], paths, "direction", DIRECTION_TOLERANCE)
    first = images[0]
    geometry = {"spacing": first.GetSpacing(), "origin": first.GetOrigin(), "direction": first.GetDirection()}
    return data, {"sitk_stuff": geometry, "spacing": spacings[0]}


def _spacing_zyx(image: sitk.Image) -> list[float]:
    spacing = [abs(length) for length in reversed(image.GetSpacing())]
    return spacing if len(spacing) == 3 else [max(spacing) * _SLICE_SPACING_FACTOR, *spacing]


def _labels_on_grid(seg: np.ndarray, geometry: dict) -> sitk.Image:
    import SimpleITK as sitk

    if seg.ndim != 3:
        raise ValueError(f"a label map must have axes (Z, Y, X), with Z = 1 for a 2-D image; got shape {seg.shape}")
    is_slice = len(geometry["spacing"]) == 2
    image = sitk.GetImageFromArray(as_smallest_label_type(seg[0] if is_slice else seg))
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    return image


def _write(image: sitk.Image, path: str) -> None:
    import SimpleITK as sitk

    with replace_when_complete(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)

"""NIfTI, NRRD, MetaImage and GIPL images, read with SimpleITK."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
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
    require_positive_spacing,
    require_same_geometry,
    require_same_spacing,
    stack_channels,
)
from nnunetv2.imageio.gipl_integrity import check_gipl
from nnunetv2.imageio.metaimage_integrity import (
    MetaImageHeader,
    check_metaimage,
    is_metaimage,
    read_metaimage_header,
    require_intact_metaimage,
)
from nnunetv2.imageio.nifti_integrity import NiftiHeader, check_nifti, is_nifti, require_intact_nifti
from nnunetv2.imageio.nrrd_integrity import NrrdHeader, check_nrrd, is_nrrd, read_nrrd_header, require_intact_nrrd
from nnunetv2.imageio.size_limits import require_readable_size

if TYPE_CHECKING:
    import SimpleITK as sitk

# Third spacing of a 2D image, relative to its largest one: so large that no planner treats that axis as in-plane.
_SLICE_SPACING_FACTOR = 999

Header = NiftiHeader | MetaImageHeader | NrrdHeader

# Formats that SimpleITK writes as a header and a file of voxels.
_DETACHED = (".mhd", ".nhdr", ".hdr", ".img")


class SimpleITKIO(BaseReaderWriter):
    """2D and 3D images; one channel per file.

    The property `sitk_stuff` holds spacing, origin and direction in SimpleITK's order (x, y, z); the property `spacing`
    is in array order.
    """

    supported_file_endings = [".nii.gz", ".nrrd", ".mha", ".gipl"]

    def check_header(self, image_fname: str) -> None:
        with naming(image_fname):
            _check_file(image_fname)

    def companion_files(self, image_fname: str) -> list[str]:
        with naming(image_fname):
            if is_metaimage(image_fname):
                files = [read_metaimage_header(image_fname).data_file]
            elif is_nrrd(image_fname):
                files = list(read_nrrd_header(image_fname).data_files)
            else:
                stem, ending = os.path.splitext(image_fname)
                other = {".hdr": ".img", ".img": ".hdr"}.get(ending.lower())
                files = [stem + other] if other else []
        return [file for file in files if file != image_fname]

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
        header = _check_file(path)
        # Without the name of the format, SimpleITK opens the file once per format to find out.
        image = sitk.ReadImage(str(path), imageIO="NiftiImageIO" if isinstance(header, NiftiHeader) else "")
        _require_intact(path, header, sitk.GetArrayViewFromImage(image))
    # Some files store a 3D image with trailing axes of length 1.
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    if image.GetDimension() not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{path} has size {list(image.GetSize())} and {image.GetNumberOfComponentsPerPixel()} values per voxel; "
            f"nnU-Net reads one channel of at most three axes per file: write each channel as CASE_0000, CASE_0001, ..."
        )
    return image


def _check_file(path: str) -> Header | None:
    """Check what the header says before memory is taken for the voxels; return it, if its format has a checksum."""
    if is_nifti(path):
        header = check_nifti(path)
        if header.is_sheared:
            raise DataError(
                f"{path} is sheared: the axes in its affine are not perpendicular, which SimpleITK does not read. Set "
                f'"overwrite_image_reader_writer": "NibabelIO" in dataset.json to read all images as they are stored, '
                f"or resample this one to perpendicular axes"
            )
        return header
    if is_metaimage(path):
        return check_metaimage(path)
    if is_nrrd(path):
        return check_nrrd(path)
    if str(path).lower().endswith(".gipl"):
        check_gipl(path)
    else:
        _check_other_format(path)
    return None


def _check_other_format(path: str) -> None:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    shape = (*reader.GetSize(), reader.GetNumberOfComponents())
    packed = os.path.getsize(path)
    if str(path).lower().endswith(_DETACHED):
        packed = sum(entry.stat().st_size for entry in Path(path).parent.glob(f"{Path(path).stem}.*"))
    require_readable_size(path, shape, unpacked=math.prod(shape), packed=packed)


def _require_intact(path: str, header: Header | None, voxels: np.ndarray) -> None:
    if isinstance(header, NiftiHeader):
        require_intact_nifti(path, header, voxels)
    elif isinstance(header, MetaImageHeader):
        require_intact_metaimage(header, voxels)
    elif isinstance(header, NrrdHeader):
        require_intact_nrrd(header, voxels)


def _read(images: list[sitk.Image], paths: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
    import SimpleITK as sitk

    spacings = [_spacing_zyx(image) for image in images]
    arrays = [sitk.GetArrayViewFromImage(image) for image in images]
    data = stack_channels([array.reshape((1,) * (4 - array.ndim) + array.shape) for array in arrays], paths)
    require_same_spacing(spacings, paths)
    require_same_geometry([image.GetOrigin() for image in images], paths, "origin", ORIGIN_TOLERANCE)
    require_same_geometry([image.GetDirection() for image in images], paths, "direction", DIRECTION_TOLERANCE)
    require_positive_spacing(spacings[0], paths[0])
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

    if not str(path).lower().endswith(_DETACHED):
        with replace_when_complete(path) as temporary:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        return
    # The header names the other file, so both are written under their final names, and the header appears last.
    target = Path(path)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        sitk.WriteImage(image, str(Path(folder, target.name)), useCompression=True)
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == target.name):
            os.replace(file, target.parent / file.name)

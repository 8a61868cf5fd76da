"""Small images in every format, as image and as label map, for tests that damage them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from skimage import io

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

SHAPE = (8, 20, 16)

# By name: reader, ending of the image, whether it is compressed, ending of the file with its voxels.
FORMATS: dict[str, tuple[type[BaseReaderWriter], str, bool, str]] = {
    "nii SimpleITK": (SimpleITKIO, ".nii", False, ".nii"),
    "nii nibabel": (NibabelIO, ".nii", False, ".nii"),
    "nii.gz SimpleITK": (SimpleITKIO, ".nii.gz", True, ".nii.gz"),
    "nii.gz nibabel": (NibabelIO, ".nii.gz", True, ".nii.gz"),
    "nrrd": (SimpleITKIO, ".nrrd", False, ".nrrd"),
    "nrrd gzip": (SimpleITKIO, ".nrrd", True, ".nrrd"),
    "nrrd detached": (SimpleITKIO, ".nhdr", False, ".raw"),
    "nrrd detached gzip": (SimpleITKIO, ".nhdr", True, ".raw.gz"),
    "mha": (SimpleITKIO, ".mha", False, ".mha"),
    "mha zlib": (SimpleITKIO, ".mha", True, ".mha"),
    "mhd": (SimpleITKIO, ".mhd", False, ".raw"),
    "mhd zlib": (SimpleITKIO, ".mhd", True, ".zraw"),
    "gipl": (SimpleITKIO, ".gipl", False, ".gipl"),
    "png": (NaturalImage2DIO, ".png", True, ".png"),
    "bmp": (NaturalImage2DIO, ".bmp", False, ".bmp"),
    "tif": (NaturalImage2DIO, ".tif", False, ".tif"),
    "tif stack": (Tiff3DIO, ".tif", False, ".tif"),
    "tif stack zlib": (Tiff3DIO, ".tif", True, ".tif"),
}


@dataclass(frozen=True)
class Sample:
    """A file that can be read, and the file with its voxels, which may be another one."""

    reader: BaseReaderWriter
    path: Path
    voxels: Path
    is_label: bool

    def read(self) -> np.ndarray:
        path = str(self.path)
        return (self.reader.read_seg(path) if self.is_label else self.reader.read_images([path]))[0]


def arrays(is_label: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    if not is_label:
        return generator.normal(100, 20, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 5:12, 4:10] = generator.integers(1, 3, (4, 7, 6))
    return labels


def write_sample(folder: Path, name: str, is_label: bool) -> Sample:
    reader, ending, compressed, voxel_ending = FORMATS[name]
    array = arrays(is_label)
    stem = "case" if is_label else "case_0000"
    path = folder / f"{stem}{ending}"
    if reader is Tiff3DIO:
        tifffile.imwrite(path, array, compression="zlib" if compressed else None)
        (folder / "case.json").write_text('{"spacing": [3, 0.7, 0.5]}')
    elif reader is NaturalImage2DIO:
        io.imsave(path, array[3].astype(np.uint8), check_contrast=False)
    else:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.5, 0.7, 3))
        sitk.WriteImage(image, str(path), compressed)
    return Sample(reader(), path, folder / f"{stem}{voxel_ending}", is_label)

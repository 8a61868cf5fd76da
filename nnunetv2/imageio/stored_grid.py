"""The voxel grid of an image file, read without its voxels where the format allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2.imageio.channel_grid import naming
from nnunetv2.imageio.geometry import placement_differences, spacings_agree
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter


@dataclass(frozen=True)
class StoredGrid:
    """Grid of a file, in the axis order of the file."""

    shape: tuple[int, ...]
    properties: dict[str, Any]
    """`spacing` in mm, and origin and direction as `placement_differences` takes them"""

    def differences(self, other: StoredGrid) -> list[str]:
        """Describes how this grid differs from another; empty if they are the same."""
        differences = []
        if self.shape != other.shape:
            return [f"shape {list(self.shape)} against {list(other.shape)}"]
        if not spacings_agree(self.properties, other.properties):
            own, others = self.properties["spacing"], other.properties["spacing"]
            differences.append(f"spacing {list(own)} against {list(others)} mm")
        return differences + placement_differences(self.properties, other.properties)


def grid_of_image(files: Sequence[str], reader: BaseReaderWriter) -> StoredGrid:
    """Grid of the first channel of a case, on which its segmentation is written.

    Args:
        files: channels of one case.
        reader: of the case; the readers of NIfTI and similar formats need the header only, others read the image.

    Raises:
        DataError: the file cannot be read.
    """
    header = _header_reader(reader)
    if header is not None:
        return header(files[0])
    image, properties = reader.read_images(list(files))
    return StoredGrid(image.shape[1:], properties)


def grid_of_segmentation(file: str, segmentation: np.ndarray, properties: dict, reader: BaseReaderWriter) -> StoredGrid:
    """Grid of a label map (1, Z, Y, X) that `reader` has read, comparable with that of `grid_of_image`."""
    header = _header_reader(reader)
    return StoredGrid(segmentation.shape[1:], properties) if header is None else header(file)


def _header_reader(reader: BaseReaderWriter) -> Any:
    """None for readers of users, which may derive from ours and interpret files differently."""
    if type(reader) in (SimpleITKIO, SimpleITKIOWithReorient):
        return _simpleitk_grid
    return _nibabel_grid if type(reader) in (NibabelIO, NibabelIOWithReorient) else None


def _simpleitk_grid(path: str) -> StoredGrid:
    import SimpleITK as sitk

    with naming(path):
        file = sitk.ImageFileReader()
        file.SetFileName(str(path))
        file.ReadImageInformation()
    num_axes = file.GetDimension()
    shape, spacing, origin = list(file.GetSize()), list(file.GetSpacing()), list(file.GetOrigin())
    direction = np.reshape(file.GetDirection(), (num_axes, num_axes))
    while num_axes > 3 and shape[num_axes - 1] == 1:  # as in reading, which drops trailing axes of length 1
        num_axes -= 1
    geometry = {"origin": origin[:num_axes], "direction": direction[:num_axes, :num_axes].ravel().tolist()}
    return StoredGrid(tuple(shape[:num_axes]), {"spacing": spacing[:num_axes], "sitk_stuff": geometry})


def _nibabel_grid(path: str) -> StoredGrid:
    import nibabel

    with naming(path):
        image = nibabel.load(path)
        shape = list(image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        affine = np.asarray(image.affine, dtype=float)
    # Not the header's zooms: some files contradict their affine, from which the zooms of a written file are derived.
    spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return StoredGrid(tuple(shape), {"spacing": spacing, "nibabel_stuff": {"original_affine": affine}})

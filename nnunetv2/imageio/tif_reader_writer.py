"""3D TIFF images, read with tifffile."""

from __future__ import annotations

import logging
import math
import os
import re
from pathlib import Path

import numpy as np

from dinov3.utils.atomic_files import read_json, replace_when_complete, write_json
from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.channel_grid import as_smallest_label_type, naming, stack_channels
from nnunetv2.imageio.raster_integrity import check_tiff, page_errors_raised

logger = logging.getLogger(__name__)

_NO_SPACING = (1, 1, 1)
_CHANNEL = re.compile(r"_\d{4}$")


class Tiff3DIO(BaseReaderWriter):
    """3D images; one channel per file. 2D TIFF files are read by `NaturalImage2DIO`.

    TIFF has no reliable field for the spacing. It is read from a JSON file beside the image, `{"spacing": [z, y, x]}`,
    named after the case: `case.json` for `case_0000.tif` and for the label map `case.tif`. Without it, the spacing is
    1 on all axes.
    """

    supported_file_endings = [".tif", ".tiff"]

    def check_header(self, image_fname: str) -> None:
        with naming(image_fname):
            if len(shape := check_tiff(image_fname)) != 3:
                raise DataError(f"{image_fname} has shape {list(shape)}; this reader is for images with three axes")

    def has_spacing(self, file: str) -> bool:
        return os.path.isfile(f"{os.path.splitext(file)[0]}.json")

    def companion_files(self, image_fname: str) -> list[str]:
        own = f"{os.path.splitext(image_fname)[0]}.json"
        candidates = dict.fromkeys((own, f"{_case(image_fname)}.json"))
        return [path for path in candidates if os.path.isfile(path)][:1]

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        data = stack_channels([self._load(path) for path in image_fnames], image_fnames)
        return data, {"spacing": _spacing_beside(_case(image_fnames[0]), image_fnames[0])}

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        seg = self._load(seg_fname).astype(np.float32, copy=False)
        return seg, {"spacing": _spacing_beside(os.path.splitext(seg_fname)[0], seg_fname)}

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        import tifffile

        with replace_when_complete(output_fname) as temporary:
            tifffile.imwrite(temporary, data=as_smallest_label_type(seg), compression="zlib")
        write_json({"spacing": list(properties["spacing"])}, Path(output_fname).with_suffix(".json"))

    def _load(self, path: str) -> np.ndarray:
        """Read one file as an array (1, Z, Y, X)."""
        import tifffile

        if Path(path).suffix.lower() not in self.supported_file_endings:
            raise DataError(f"{path} is not a TIFF file; the endings are {', '.join(self.supported_file_endings)}")
        with naming(path), page_errors_raised():
            check_tiff(path)
            image = tifffile.imread(path)
        if image.ndim != 3:
            raise DataError(f"{path} has shape {list(image.shape)}; this reader is for images with three axes")
        return image[None]


def _case(image: str) -> str:
    """Path of a case, up to its name: without ending, and without the channel number of an image."""
    return _CHANNEL.sub("", os.path.splitext(image)[0])


def _spacing_beside(case: str, image: str) -> list[float] | tuple[int, int, int]:
    path = f"{case}.json"
    if not os.path.isfile(path):
        logger.warning("There is no %s with the spacing of %s; assuming 1 on all axes", path, image)
        return _NO_SPACING
    content = read_json(path)
    spacing = content.get("spacing") if isinstance(content, dict) else None
    if not (isinstance(spacing, list) and len(spacing) == 3 and all(_is_length(length) for length in spacing)):
        raise DataError(f'{path} must hold three positive numbers, like {{"spacing": [3, 0.5, 0.5]}}; got {spacing!r}')
    return spacing


def _is_length(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0

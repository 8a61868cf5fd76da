"""3D TIFF images, read with tifffile."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dinov3.utils.atomic_files import read_json, replace_when_complete, write_json
from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.channel_grid import as_smallest_label_type, naming, stack_channels

logger = logging.getLogger(__name__)

_NO_SPACING = (1, 1, 1)


class Tiff3DIO(BaseReaderWriter):
    """3D images; one channel per file. 2D TIFF files are read by `NaturalImage2DIO`.

    TIFF has no reliable field for the spacing. It is read from a JSON file beside the image, `{"spacing": [z, y, x]}`,
    named after the case: `case.json` for `case_0000.tif` and for the label map `case.tif`. Without it, the spacing is
    1 on all axes.
    """

    supported_file_endings = [".tif", ".tiff"]

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        data = stack_channels([self._load(path) for path in image_fnames], image_fnames)
        case = os.path.splitext(image_fnames[0])[0][: -len("_0000")]
        return data, {"spacing": _spacing_beside(case, image_fnames[0])}

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
        with naming(path), _page_errors_raised():
            image = tifffile.imread(path)
        if image.ndim != 3:
            raise DataError(f"{path} has shape {list(image.shape)}; this reader is for images with three axes")
        return image[None]


class _PageErrors(logging.Handler):
    """Collects tifffile's log messages about skipped pages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "invalid page offset" in message or "corrupted" in message:
            self.messages.append(message)


@contextmanager
def _page_errors_raised() -> Iterator[None]:
    """Raise an error for truncated files, whose missing pages tifffile only logs and skips."""
    handler = _PageErrors()
    library_log = logging.getLogger("tifffile")
    library_log.addHandler(handler)
    try:
        yield
    finally:
        library_log.removeHandler(handler)
    if handler.messages:
        raise ValueError(handler.messages[0])


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

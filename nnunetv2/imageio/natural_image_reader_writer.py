"""2D images of common formats, read with the packages behind scikit-image's `io`, which itself takes long to import."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.channel_grid import as_smallest_label_type, naming, stack_channels
from nnunetv2.imageio.pictures import IMPORT_COMMAND, PICTURE_ENDINGS, read_picture, without_alpha
from nnunetv2.imageio.raster_integrity import check_bmp, check_png, check_tiff

logger = logging.getLogger(__name__)

# These formats have no spacing. That of the slice axis is so large that no planner treats it as an in-plane axis.
_SPACING = (999, 1, 1)

_MAX_GREY = {2: 3, 4: 15}  # by bits per pixel
_COLOURS = (("r", "g", "b"), ("red", "green", "blue"), ("rgb_to_0_1",) * 3)  # names of channels
_BYTE_MAX = 255
_READ_AS_STORED = (".png", ".bmp", ".tif", ".tiff")  # as upstream does, in whatever case


class NaturalImage2DIO(BaseReaderWriter):
    """2D images, grey, RGB or RGBA; colours become channels.

    Models also predict JPEG, GIF and other pictures, which no dataset is stored in: lossy compression corrupts label
    maps. These are read upright, as their EXIF orientation says.
    """

    supported_file_endings = [".png", ".bmp", ".tif"]
    shared_file_endings = [".tiff"]
    input_file_endings = list(PICTURE_ENDINGS)

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict]:
        return stack_channels([_load(path) for path in image_fnames], image_fnames), {"spacing": _SPACING}

    def as_channels(self, image: np.ndarray, channels: Sequence[str], image_fname: str) -> np.ndarray:
        """Drop an opaque alpha, and convert grey to colours or colours that are grey to grey.

        The importer of datasets does the same. Grey is only repeated for channels that are called red, green and blue:
        other channels are in files of their own, and one of them is missing.
        """
        if len(image) == 4 and len(channels) in (1, 3):
            kind = np.uint16 if image[3].max() > _BYTE_MAX else np.uint8
            without_alpha(np.moveaxis(image[:, 0], 0, -1).astype(kind), image_fname)
            image = image[:3]
        if len(image) == 1 and tuple(name.casefold() for name in channels) in _COLOURS:
            logger.warning("Warning: %s is grey; red, green and blue are set to it", image_fname)
            return np.repeat(image, len(channels), axis=0)
        if len(image) == 3 and len(channels) == 1 and (image == image[:1]).all():
            return image[:1]
        return image

    def has_spacing(self, file: str) -> bool:
        return False

    def check_header(self, image_fname: str) -> None:
        with naming(image_fname):
            _check_file(image_fname)

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict]:
        """Read a label map; the labels are the stored numbers, also where a palette shows them as colours."""
        with naming(seg_fname):
            stored = _stored_numbers(seg_fname)
        seg = _load(seg_fname) if stored is None else stored[None, None]
        if seg.shape[0] != 1:
            raise DataError(
                f"{seg_fname} is a colour image with {seg.shape[0]} channels; a label map has one channel whose values "
                f"are the labels: give each colour its label with {IMPORT_COMMAND} --labels NAME=#rrggbb "
                f"(--predictions for pictures of other programs). A conversion to grey would not do this"
            )
        return seg.astype(np.float32), {"spacing": _SPACING}

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        labels = as_smallest_label_type(seg[0])
        with replace_when_complete(output_fname) as temporary:
            if _is_tiff(output_fname):
                import tifffile

                tifffile.imwrite(str(temporary), labels)
            else:
                import imageio.v3

                imageio.v3.imwrite(str(temporary), labels)


def _load(path: str) -> np.ndarray:
    """Read one file as an array (channels, 1, Y, X)."""
    if os.path.splitext(path)[1].lower() not in _READ_AS_STORED:
        image = read_picture(path).as_shown()
    else:
        with naming(path), _without_limit_of_pillow():
            _check_file(path)
            image = _stored_pixels(path)
        if image.ndim == 3 and image.shape[-1] == 2:
            image = without_alpha(image, path)
    if image.ndim == 2:
        return image[None, None]
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        return np.moveaxis(image, -1, 0)[:, None]
    raise DataError(
        f"{path} has shape {list(image.shape)}; a 2-D image has shape [Y, X] if it is grey and [Y, X, 3 or 4] if it is "
        f"RGB or RGBA"
    )


def _stored_pixels(path: str) -> np.ndarray:
    """Reads (Y, X) or (Y, X, C); libraries convert palettes, and fewer than 8 bits, see `_stored_numbers`."""
    if _is_tiff(path):
        import tifffile

        return tifffile.imread(path)
    import imageio.v3

    return np.asarray(imageio.v3.imread(path))


def _is_tiff(path: str) -> bool:
    return str(path).lower().endswith((".tif", ".tiff"))


def _check_file(path: str) -> None:
    """Check what the header says before memory is taken for the pixels."""
    ending = os.path.splitext(path)[1].lower()
    if ending == ".png":
        check_png(path)
    elif ending == ".bmp":
        check_bmp(path)
    elif ending in (".tif", ".tiff"):
        shape = check_tiff(path)
        if not (len(shape) == 2 or (len(shape) == 3 and shape[-1] in (3, 4))):
            raise DataError(
                f"{path} has shape {list(shape)}; a 2-D image has shape [Y, X] if it is grey and [Y, X, 3 or 4] if it "
                f"is RGB or RGBA"
            )


def _stored_numbers(path: str) -> np.ndarray | None:
    """Numbers (Y, X) of a file whose pixels libraries convert: palettes to colours, 1 to 4 bits to the range 0 to 255.

    None if the file has none of these, so that pixels are read as they are stored.
    """
    from PIL import Image

    if not str(path).lower().endswith((".png", ".bmp")):
        return None
    _check_file(path)
    with _without_limit_of_pillow(), Image.open(path) as image:
        if image.mode == "P":
            return np.asarray(image)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        bits = check_png(path).bits if path.lower().endswith(".png") else None
        if image.mode == "L" and bits in _MAX_GREY:
            return np.asarray(image) // (255 // _MAX_GREY[bits])
    return None


@contextmanager
def _without_limit_of_pillow() -> Iterator[None]:
    """Pillow refuses more than 179 million pixels, which slides have; the limit of this package applies instead."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit

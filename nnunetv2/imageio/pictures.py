"""Read pictures of common formats with one rule each for palettes, alpha, orientation and depth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.imageio.channel_grid import naming
from nnunetv2.imageio.raster_integrity import check_bmp, check_png, check_tiff
from nnunetv2.imageio.size_limits import UNSUSPICIOUS_SLICE, require_readable_size

if TYPE_CHECKING:
    from PIL import Image
    from tifffile import TiffPage

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".webp")
"""Compared in lower case."""
IMPORT_COMMAND = "nnUNetv2_import_images"
"""Named in messages where it is the cure."""

# Of the formats that Pillow knows: some of the others run external programs.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "GIF", "PPM", "WEBP")
_LOSSY = ("JPEG", "MPO", "WEBP")  # MPO: JPEG files with a preview
_ORIENTATION = 0x0112  # EXIF and TIFF tag; 1 is upright
_UPRIGHT = 1
_PNG_START = b"\x89PNG\r\n\x1a\n"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BYTE = 8  # bits
_OPAQUE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_COLOURS = 3
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_GREY_MODES = {"1": 1, "L": 255, "LA": 255} | dict.fromkeys(_DEEP_MODES, 65535)


@dataclass(frozen=True)
class Picture:
    """Pixels of a picture, upright."""

    pixels: np.ndarray
    """(Y, X) stored grey numbers or palette indices, or (Y, X, 3) red, green and blue; uint8 or uint16"""
    highest: int
    """number that means white: 1, 3, 15, 255 or 65535"""
    palette: np.ndarray | None = None
    """(256, 3) uint8 colours, if the pixels are indices"""
    is_lossy: bool = False
    """stored by JPEG compression or the like, which changes values near edges"""
    was_turned: bool = False
    """the file's EXIF orientation was applied"""

    @property
    def is_colour(self) -> bool:
        return self.pixels.ndim == _COLOURS or (self.palette is not None and not _is_grey(self.palette))

    def as_shown(self) -> np.ndarray:
        """Returns (Y, X) grey or (Y, X, 3) colours, 0 to 255 or 65535."""
        if self.palette is not None:
            colours = self.palette[self.pixels]
            return colours if self.is_colour else colours[..., 0]
        if self.highest < 255:  # noqa: PLR2004 - a byte
            return self.pixels * np.uint8(255 // self.highest)
        return self.pixels


@dataclass(frozen=True)
class PictureKind:
    """What the header of a picture tells."""

    is_colour: bool
    bits: int
    """per channel; 8 for fewer"""
    has_alpha: bool


def is_picture(path: str | os.PathLike) -> bool:
    """Whether the ending is one of a picture, in any case."""
    return os.path.splitext(path)[1].lower() in PICTURE_ENDINGS


def read_picture(path: str | os.PathLike) -> Picture:
    """Reads a picture upright. An alpha channel that is opaque everywhere is dropped.

    Raises:
        DataError: the file is missing, damaged or too large, has several pages, is transparent somewhere, or stores
            neither grey nor RGB of 1 to 16 bits.
    """
    path = os.fspath(path)
    with naming(path):
        start = _checked_start(path)
        if start.startswith(_PNG_START) and check_png(path).bits > _BYTE:
            return _read_deep_png(path)
        if start[:4] in _TIFF_STARTS and _is_for_tifffile(path):
            return _read_deep_tiff(path)
        with opened(path) as image:
            return _picture_of(image, path)


def picture_kind(path: str | os.PathLike) -> PictureKind:
    """Tells the kind of a picture from its header.

    Raises:
        DataError: as `read_picture`, as far as the header tells.
    """
    path = os.fspath(path)
    with naming(path):
        start = _checked_start(path)
        if start.startswith(_PNG_START) and not (header := check_png(path)).is_palette and header.bits > _BYTE:
            return PictureKind(header.num_channels >= _COLOURS, header.bits, header.num_channels in (2, 4))
        if start[:4] in _TIFF_STARTS and _is_for_tifffile(path):
            picture = _read_deep_tiff(path)
            return PictureKind(picture.is_colour, _BYTE * picture.pixels.itemsize, False)
        with opened(path) as image:
            has_alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
            if image.mode in ("P", "PA"):
                return PictureKind(not _is_grey(_palette_of(image)), _BYTE, has_alpha)
            bits = 2 * _BYTE if image.mode in _DEEP_MODES else _BYTE
            return PictureKind(image.mode not in _GREY_MODES, bits, has_alpha)


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """Opens a picture of one page with Pillow, without its limit of 179 million pixels: ours applies instead."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=_FORMATS) as image:
            shape = (image.height, image.width, len(image.getbands()))
            require_readable_size(
                path,
                shape,
                unpacked=shape[0] * shape[1] * shape[2],
                packed=os.path.getsize(path),
                unsuspicious=UNSUSPICIOUS_SLICE,
            )
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and image.format != "MPO":  # photographs of some cameras, with a preview
                raise DataError(f"{path} has {pages} pages or frames; a 2-D image has one: save the one that is meant")
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _checked_start(path: str) -> bytes:
    """Checks by its first bytes that a file is whole, as far as its format tells; returns them."""
    with open(path, "rb") as file:
        start = file.read(len(_PNG_START))
    if start.startswith(_PNG_START) or Path(path).suffix.lower() == ".png":
        check_png(path)
    elif start.startswith(b"BM"):
        check_bmp(path)
    elif start[:4] in _TIFF_STARTS:
        check_tiff(path)
    return start


def _picture_of(image: Image.Image, path: str) -> Picture:
    from PIL import ImageOps

    was_turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
    is_lossy = image.format in _LOSSY or image.info.get("compression") == "jpeg"
    bits = check_png(path).bits if image.format == "PNG" else _BYTE
    image.load()  # TIFF files are turned here, and lose the tag
    if was_turned:
        image = ImageOps.exif_transpose(image)
    facts = {"is_lossy": is_lossy, "was_turned": was_turned}
    if image.mode in ("P", "PA"):
        return _from_palette(image, path, facts)
    pixels = np.asarray(image)
    if image.mode == "1":
        return Picture(pixels.astype(np.uint8), 1, **facts)
    if image.mode in ("RGB", "RGBA"):
        return Picture(without_alpha(pixels, path), 255, **facts)
    if image.mode not in _GREY_MODES:
        raise DataError(
            f"{path} is stored as {image.mode}; pictures must be grey or RGB with 1 to 16 bits, so convert it to RGB"
        )
    pixels = without_alpha(pixels if pixels.dtype == np.uint8 else _as_whole_numbers(pixels, path), path)
    if bits in (2, 4):  # Pillow scales them to 0 to 255
        return Picture(pixels // (255 // (2**bits - 1)), 2**bits - 1, **facts)
    return Picture(pixels, _GREY_MODES[image.mode], **facts)


def _from_palette(image: Image.Image, path: str, facts: dict) -> Picture:
    if "transparency" in image.info or image.mode == "PA":
        without_alpha(np.asarray(image.convert("RGBA")), path)
    indices = np.asarray(image)
    indices = indices[..., 0] if indices.ndim == _COLOURS else indices
    return Picture(indices, 255, _palette_of(image), **facts)


def _palette_of(image: Image.Image) -> np.ndarray:
    colours = np.zeros((256, 3), np.uint8)
    stored = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(stored)] = stored
    return colours


def _is_grey(colours: np.ndarray) -> bool:
    return bool((colours == colours[..., :1]).all())


def _read_deep_png(path: str) -> Picture:
    """Of Pillow's modes only grey has 16 bits; colours would lose half of theirs."""
    import imagecodecs

    pixels = without_alpha(imagecodecs.png_decode(Path(path).read_bytes()), path)
    return Picture(pixels, 65535)


def _is_for_tifffile(path: str) -> bool:
    """Whether Pillow cannot read a TIFF file rightly.

    That is: 64-bit offsets, more than 8 bits, colours one after the other, and pages to be turned, of which Pillow 13
    mixes up height and width if they are not compressed.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        is_usual = page.bitspersample in (1, _BYTE) and page.planarconfig != tifffile.PLANARCONFIG(2)
        return file.is_bigtiff or not is_usual or _orientation(page) != _UPRIGHT


def _orientation(page: TiffPage) -> int:
    return int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else _UPRIGHT


def _read_deep_tiff(path: str) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.pages) > 1:
            raise DataError(f"{path} has {len(file.pages)} pages; a 2-D image has one: save the one that is meant")
        page = file.pages[0]
        pixels = page.asarray()
        palette = None if page.colormap is None else (page.colormap.T >> _BYTE).astype(np.uint8)
        orientation = _orientation(page)
    if pixels.ndim == _COLOURS and page.planarconfig == tifffile.PLANARCONFIG(2):
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = _as_whole_numbers(pixels, path)
    highest = 1 if pixels.dtype == bool else _OPAQUE[pixels.dtype]
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = highest - pixels
    is_lossy = page.compression in (tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG)
    pixels = _turned(without_alpha(pixels, path), orientation)
    return Picture(pixels, highest, palette, is_lossy, was_turned=orientation != _UPRIGHT)


def _as_whole_numbers(pixels: np.ndarray, path: str) -> np.ndarray:
    if pixels.dtype.newbyteorder("=") in (np.uint8, np.uint16, bool):
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    is_whole = pixels.dtype.kind in "iuf" and bool((pixels == np.rint(pixels)).all())
    if is_whole and pixels.min() >= 0 and pixels.max() <= _OPAQUE[np.dtype(np.uint16)]:
        return pixels.astype(np.uint16)
    raise DataError(
        f"{path} stores {pixels.dtype} with values that no 16-bit image holds; scale them to whole numbers from 0 to "
        f"65535"
    )


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels upright. Source: TIFF 6.0, tag Orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def without_alpha(pixels: np.ndarray, path: str) -> np.ndarray:
    """Removes the last of 2 or 4 channels, which must be opaque.

    Raises:
        DataError: a pixel is transparent, or there are other numbers of channels.
    """
    if pixels.ndim == _COLOURS and pixels.shape[-1] in (2, 4):
        opacity = pixels[..., -1]
        transparent = np.argwhere(opacity != _OPAQUE[pixels.dtype])
        if len(transparent):
            y, x = transparent[0]
            raise DataError(
                f"{path} is transparent at {len(transparent)} pixels, the first at row {y}, column {x} (alpha "
                f"{opacity[y, x]}); only an alpha that is opaque everywhere can be dropped: flatten the image onto a "
                f"background first"
            )
        pixels = pixels[..., :-1]
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    if pixels.ndim == 2 or (pixels.ndim == _COLOURS and pixels.shape[-1] == _COLOURS):
        return np.ascontiguousarray(pixels)
    raise DataError(
        f"{path} has shape {list(pixels.shape)}; a 2-D image has shape [Y, X] if it is grey and [Y, X, 3] if it is RGB"
    )

"""Reads images and label maps with Pillow, and rejects files that Pillow would misinterpret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dinov3.utils.errors import DataError, UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MASK_SUFFIX = ".png"

EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B")

PNG_BIT_DEPTH = 24  # offset of the byte in the file; PNG specification, third edition, section 11.2.1
TIFF_BITS_PER_SAMPLE = 258  # tag; TIFF 6.0, section 6


def read_image(path: Path) -> Tensor:
    """Reads an image as RGB.

    Grey images are repeated to three channels, palettes are resolved and transparency is dropped. An EXIF rotation is
    not applied, because ADE20K's label maps refer to the stored pixels and label maps have no EXIF data.

    Returns:
        (3, H, W) uint8.

    Raises:
        DataError: the file cannot be read, has several pages or more than 8 bits per channel. No scaling to 8 bits
            suits all cameras, and scaling per image would make intensities inconsistent between images.
    """
    with _opened(path) as image:
        if image.mode not in EIGHT_BIT_MODES or _bits_per_channel(image) > 8:
            raise DataError(
                f"{path} has more than 8 bits per channel; scale the images of the whole dataset to 0-255 by the same "
                "two limits and save them with 8 bits"
            )
        if image.format == "TIFF" and image.n_frames > 1:
            raise DataError(f"{path} holds {image.n_frames} images; save each in a file of its own")
        pixels = np.array(image.convert("RGB"))  # a copy, because torch requires writable memory
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_mask(path: Path) -> Tensor:
    """Reads a label map: the stored values of a grey PNG of any depth, or the indices of a palette PNG.

    Returns:
        (H, W) int64.

    Raises:
        DataError: the file cannot be read, or has colours instead of numbers.
    """
    with _opened(path) as image:
        if image.mode not in MASK_MODES:
            raise DataError(
                f"{path} has colours or transparency (mode {image.mode}); a mask is a PNG with one channel of class "
                "numbers: grey with 8 or 16 bits, or a palette"
            )
        numbers = np.array(image).astype(np.int64)
        bits = _bits_per_channel(image)
    if image.mode == "L" and bits < 8:
        numbers //= 255 // (2**bits - 1)  # Pillow stretches grey of 2 and 4 bits to 0-255
    return torch.from_numpy(numbers)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens a file with Pillow; errors while reading its pixels become a `DataError` that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError, TypeError) as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise DataError(f"{path} cannot be read as an image ({reason}); replace or remove the file") from err


def _bits_per_channel(image: Image.Image) -> int:
    """Reads the bit depth from the file, because Pillow silently drops the lower byte of 16-bit colours."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (8,)))
    if image.format != "PNG":
        return 8
    with open(image.filename, "rb") as file:
        return file.read(PNG_BIT_DEPTH + 1)[PNG_BIT_DEPTH]

"""Label maps whose numbers image libraries convert to colours or to other numbers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2.errors import DataError
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

LABELS = np.array([[0, 1, 2, 0], [3, 3, 1, 2], [0, 0, 0, 1]], np.uint8)
COLOURS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # of PASCAL VOC


def palette_image(labels: np.ndarray = LABELS) -> Image.Image:
    image = Image.fromarray(labels).convert("P")
    image.putdata(labels.ravel())
    image.putpalette(COLOURS + [0] * (768 - len(COLOURS)))
    return image


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_palette_indices_are_the_labels(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    palette_image().save(path)
    labels, properties = NaturalImage2DIO().read_seg(str(path))
    np.testing.assert_array_equal(labels, LABELS[None, None])
    assert labels.dtype == np.float32
    assert properties == {"spacing": (999, 1, 1)}


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 128, 255])])
def test_transparent_palettes_as_well(tmp_path: Path, transparency: int | bytes) -> None:
    palette_image().save(tmp_path / "a.png", transparency=transparency)
    np.testing.assert_array_equal(NaturalImage2DIO().read_seg(str(tmp_path / "a.png"))[0], LABELS[None, None])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits(tmp_path: Path, bits: int) -> None:
    labels = LABELS % 2**bits
    palette_image(labels).save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    np.testing.assert_array_equal(NaturalImage2DIO().read_seg(str(tmp_path / "a.png"))[0], labels[None, None])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_images_of_few_bits(tmp_path: Path, bits: int) -> None:
    """Libraries scale them to the range 0 to 255."""
    import struct
    import zlib

    labels = np.pad(LABELS % 2**bits, ((0, 0), (0, 4)))  # whole bytes in each row
    rows = b"".join(
        b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes() for row in labels
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    np.testing.assert_array_equal(NaturalImage2DIO().read_seg(str(tmp_path / "a.png"))[0], labels[None, None])


def test_black_and_white_bitmap(tmp_path: Path) -> None:
    Image.fromarray(LABELS > 1).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(NaturalImage2DIO().read_seg(str(tmp_path / "a.bmp"))[0], (LABELS > 1)[None, None])


def test_palette_of_an_image_gives_its_colours(tmp_path: Path) -> None:
    palette_image().save(tmp_path / "a_0000.png")
    image, _ = NaturalImage2DIO().read_images([str(tmp_path / "a_0000.png")])
    colours = np.array(COLOURS).reshape(-1, 3)
    np.testing.assert_array_equal(image, colours[LABELS].transpose(2, 0, 1)[:, None])


def test_advice_for_colours_does_not_lead_to_wrong_labels(tmp_path: Path) -> None:
    palette_image().convert("RGB").save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"give each colour its label .* A conversion to grey would not do this"):
        NaturalImage2DIO().read_seg(str(tmp_path / "a.png"))

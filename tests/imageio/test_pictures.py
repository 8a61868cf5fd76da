"""Pictures of all formats, as the importer reads them and models predict them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunetv2.errors import DataError
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.pictures import PictureKind, picture_kind, read_picture
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

GREY = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
UPRIGHT = {  # by the definition of the tag: where the first row and column of the file are in the picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def with_alpha(pixels: np.ndarray, alpha: int = 255) -> np.ndarray:
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    opaque[3, 2] = alpha
    return np.dstack([pixels, opaque])


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".gif", ".ppm", ".webp"])
@pytest.mark.parametrize("pixels", [GREY, COLOURS], ids=["grey", "colours"])
def test_lossless_formats(tmp_path: Path, ending: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"a{ending}"
    image = Image.fromarray(pixels)
    if ending == ".gif":
        image = image.quantize(256) if pixels is COLOURS else image
    image.save(path, **({"lossless": True} if ending == ".webp" else {}))
    is_colour = pixels is COLOURS or ending == ".webp"  # which has no grey
    expected = np.asarray(image.convert("RGB" if is_colour else "L"))
    np.testing.assert_array_equal(read_picture(path).as_shown(), expected)
    assert picture_kind(path) == PictureKind(is_colour, 8, False)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "jpg", "8-bit tif", "16-bit tif", "compressed tif"])
def test_pictures_are_turned_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"a.{kind[-3:]}"
    pixels = np.kron(GREY, np.ones((8, 8), np.uint8)) // 2 + 60  # even blocks, which JPEG keeps up to rounding
    pixels = pixels.astype(np.uint16) * 200 if kind == "16-bit tif" else pixels
    if path.suffix == ".tif":
        compression = "zlib" if kind == "compressed tif" else None
        tifffile.imwrite(path, pixels, extratags=[(274, 3, 1, orientation, True)], compression=compression)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(path, exif=exif, **({"quality": 100} if kind == "jpg" else {}))
    picture = read_picture(path)
    np.testing.assert_allclose(picture.pixels, UPRIGHT[orientation](pixels), rtol=0, atol=2 if kind == "jpg" else 0)
    assert picture.was_turned == (orientation != 1)
    assert picture.is_lossy == (kind == "jpg")


def test_numbers_of_few_bits_are_as_stored_and_as_shown(tmp_path: Path) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, GREY > 99)
    np.testing.assert_array_equal(picture.as_shown(), (GREY > 99) * 255)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(COLOURS.astype(np.uint16) * 200))
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").pixels, COLOURS.astype(np.uint16) * 200)
    assert picture_kind(tmp_path / "b.png") == PictureKind(True, 16, False)


def test_colours_one_after_the_other(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(COLOURS, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, COLOURS)
    tifffile.imwrite(tmp_path / "b.tif", COLOURS, photometric="rgb", bigtiff=True)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.tif").pixels, COLOURS)


@pytest.mark.parametrize("pixels", [GREY, COLOURS], ids=["grey", "colours"])
def test_alpha_is_dropped_only_if_it_is_opaque(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(with_alpha(pixels)).save(path)
    np.testing.assert_array_equal(read_picture(path).pixels, pixels)
    assert picture_kind(path) == PictureKind(pixels is COLOURS, 8, True)
    Image.fromarray(with_alpha(pixels, alpha=254)).save(path)
    with pytest.raises(
        DataError, match=r"a.png is transparent at 1 pixels, the first at row 3, column 2 \(alpha 254\)"
    ):
        read_picture(path)


def test_files_that_are_no_single_picture(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_text("text")
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(tmp_path / "d.jpg")
    (tmp_path / "d.jpg").write_bytes((tmp_path / "d.jpg").read_bytes()[:-300])
    tifffile.imwrite(tmp_path / "e.tif", GREY.astype(np.float32) / 3)
    reasons = {"a.gif": "2 pages or frames", "a.tif": "2 pages", "b.jpg": "stored as CMYK", "c.jpg": "cannot be read"}
    for name, reason in (reasons | {"d.jpg": "cannot be read", "e.tif": "stores float32", "f.png": "no image"}).items():
        with pytest.raises(DataError, match=f"{name}.*{reason}|{reason}.*{name}"):
            read_picture(tmp_path / name)


def test_models_read_jpeg_gif_and_grey_with_alpha(tmp_path: Path) -> None:
    reader = NaturalImage2DIO()
    Image.fromarray(COLOURS).save(tmp_path / "a_0000.JPG", quality=100, subsampling=0)
    data, properties = reader.read_images([str(tmp_path / "a_0000.JPG")])
    np.testing.assert_allclose(data, np.moveaxis(COLOURS, -1, 0)[:, None].astype(np.float32), rtol=0, atol=6)
    assert properties == {"spacing": (999, 1, 1)}
    Image.fromarray(GREY).save(tmp_path / "b_0000.gif")
    np.testing.assert_array_equal(reader.read_images([str(tmp_path / "b_0000.gif")])[0], GREY[None, None])
    Image.fromarray(with_alpha(GREY)).save(tmp_path / "c_0000.png")
    np.testing.assert_array_equal(reader.read_images([str(tmp_path / "c_0000.png")])[0], GREY[None, None])
    Image.fromarray(with_alpha(GREY, alpha=0)).save(tmp_path / "c_0000.png")
    with pytest.raises(DataError, match="is transparent at 1 pixels"):
        reader.read_images([str(tmp_path / "c_0000.png")])


@pytest.mark.parametrize("names", [("R", "G", "B"), ("red", "green", "blue"), ("rgb_to_0_1",) * 3])
def test_pictures_get_the_channels_of_a_model_of_colours(
    tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    reader = NaturalImage2DIO()
    colours, grey = np.moveaxis(COLOURS, -1, 0)[:, None].astype(np.float32), GREY[None, None].astype(np.float32)
    alpha = np.full_like(grey, 255)
    np.testing.assert_array_equal(reader.as_channels(np.concatenate([colours, alpha]), names, "a.png"), colours)
    deep = np.concatenate([colours * 257, alpha * 257])
    np.testing.assert_array_equal(reader.as_channels(deep, names, "a.tif"), colours * 257)
    assert not caplog.messages
    np.testing.assert_array_equal(reader.as_channels(grey, names, "a.jpg"), np.repeat(grey, 3, axis=0))
    assert "a.jpg is grey" in caplog.text
    alpha[0, 0, 3, 2] = 254
    with pytest.raises(
        DataError, match=r"a.png is transparent at 1 pixels, the first at row 3, column 2 \(alpha 254\)"
    ):
        reader.as_channels(np.concatenate([colours, alpha]), names, "a.png")


def test_pictures_get_the_channel_of_a_grey_model() -> None:
    reader = NaturalImage2DIO()
    colours, grey = np.moveaxis(COLOURS, -1, 0)[:, None].astype(np.float32), GREY[None, None].astype(np.float32)
    as_colours = np.repeat(grey, 3, axis=0)
    np.testing.assert_array_equal(reader.as_channels(as_colours, ["grey"], "a.jpg"), grey)
    opaque = np.concatenate([as_colours, np.full_like(grey, 255)])
    np.testing.assert_array_equal(reader.as_channels(opaque, ["grey"], "a.png"), grey)
    assert reader.as_channels(colours, ["grey"], "a.jpg").shape == colours.shape


def test_a_missing_channel_is_not_made_up() -> None:
    grey = GREY[None, None].astype(np.float32)
    assert len(NaturalImage2DIO().as_channels(grey, ["T1", "T2", "FLAIR"], "a_0000.png")) == 1


def test_examples_decide_whether_tiff_is_a_picture_or_a_volume(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", COLOURS, photometric="rgb")
    assert determine_reader_writer_from_file_ending(".tiff", str(tmp_path / "a.tiff")) is NaturalImage2DIO
    data, _ = NaturalImage2DIO().read_images([str(tmp_path / "a.tiff")])
    np.testing.assert_array_equal(data, np.moveaxis(COLOURS, -1, 0)[:, None])
    tifffile.imwrite(tmp_path / "b.tiff", np.zeros((6, 20, 30), np.uint8))
    assert determine_reader_writer_from_file_ending(".tiff", str(tmp_path / "b.tiff")) is Tiff3DIO
    assert determine_reader_writer_from_file_ending(".tiff") is Tiff3DIO


def test_messages_name_the_command_that_imports(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"end in '.jpg'.*nnUNetv2_import_images imports such pictures as .png"):
        determine_reader_writer_from_file_ending(".jpg")
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="with nnUNetv2_import_images --labels NAME=#rrggbb"):
        NaturalImage2DIO().read_seg(str(tmp_path / "a.png"))

"""Folders of images and label maps: what is found, in which order, what is read, and what is refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinov3.eval.segmentation.data.dataset import make_dataset
from dinov3.eval.segmentation.data.image_files import read_image, read_mask
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.png_folder import add_sample, save_pixels
from tests.dinov3.scratch_assay_folder import NUM_CLASSES, make_scratch_assay_folder

TRAIN = "ADE20K:split=TRAIN"


GREY, COLOUR = 0, 2  # colour types of the PNG specification


def write_png(path: Path, rows: list[list[int]], bits: int, colour_type: int = GREY) -> Path:
    """A PNG of a depth that Pillow does not write; a row lists the values of all channels of all pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    width = len(rows[0]) // (3 if colour_type == COLOUR else 1)
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    lines = b""
    for row in rows:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        lines += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


# ---- which files belong together


def test_a_sample_holds_what_is_in_its_two_files(tmp_path: Path, seeded: int) -> None:
    image = np.random.randint(0, 256, (5, 7, 3), dtype=np.uint8)
    label = np.random.randint(0, 3, (5, 7), dtype=np.uint8)
    save_pixels(tmp_path / "images/validation/a.png", image)
    save_pixels(tmp_path / "annotations/validation/a.png", label)
    dataset = make_dataset("ADE20K:split=VAL", tmp_path)
    assert len(dataset) == 1
    sample = dataset[0]
    assert sample.name == "a"
    assert sample.image.dtype == torch.uint8
    assert sample.label.dtype == torch.int64
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), image)
    np.testing.assert_array_equal(sample.label.numpy(), label)


def test_samples_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10", "frame2", "frame1", "a", "frame02", "3"):
        add_sample(tmp_path, name)
    assert make_dataset(TRAIN, tmp_path).names == ["3", "a", "frame1", "frame02", "frame2", "frame10"]


def test_jpeg_and_png_may_be_mixed_and_other_files_are_left_alone(tmp_path: Path) -> None:
    add_sample(tmp_path, "a", suffix=".JPG")
    add_sample(tmp_path, "b")
    (tmp_path / "images/training/notes.txt").write_text("not an image")
    (tmp_path / "images/training/.hidden.png").write_bytes(b"")
    assert make_dataset(TRAIN, tmp_path).names == ["a", "b"]


def test_a_folder_of_any_name_is_a_split(tmp_path: Path) -> None:
    add_sample(tmp_path, "a", split="plate 7")
    assert make_dataset("Folder:split=plate 7", tmp_path).names == ["a"]


def test_the_descriptor_may_bring_its_own_root(tmp_path: Path) -> None:
    add_sample(tmp_path, "a")
    assert make_dataset(f"{TRAIN}:root={tmp_path}", "elsewhere").names == ["a"]


def test_a_list_file_says_which_images_belong_to_the_split(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        add_sample(tmp_path, name, suffix=".jpg")
    (tmp_path / "images/training/without_mask.jpg").write_bytes(b"")
    (tmp_path / "ADE20K_object150_train.txt").write_text("training/c.jpg\r\ntraining/a.jpg\n\n")
    dataset = make_dataset(TRAIN, tmp_path)
    assert dataset.names == ["a", "c"]
    assert dataset[1].label.shape == (6, 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("training/b.jpg", r"train\.txt names .*b\.jpg, and there is no image of this name"),
        ("training/c.jpg", r"c\.jpg has no mask; add .*annotations.training.c\.png"),
        ("training/a.png", r"a\.jpg and .*a\.png have the same name"),
        ("", "names no images"),
    ],
)
def test_a_wrong_line_of_a_list_file_is_named(tmp_path: Path, line: str, message: str) -> None:
    add_sample(tmp_path, "a", suffix=".jpg")
    save_pixels(tmp_path / "images/training/c.jpg", np.zeros((6, 8, 3), dtype=np.uint8))
    (tmp_path / "ADE20K_object150_train.txt").write_text(f"training/a.jpg\n{line}\n" if line else "\n")
    with pytest.raises(DataError, match=message):
        make_dataset(TRAIN, tmp_path)


@pytest.mark.parametrize(
    "descriptor",
    ["", "ADE20K", "ADE20K:split=TEST", "COCO:split=TRAIN", "Folder:split=", "ADE20K:part=TRAIN", "ADE20K:VAL"],
)
def test_an_unknown_descriptor_is_refused_with_those_that_are_known(tmp_path: Path, descriptor: str) -> None:
    with pytest.raises(UsageError, match=r"is not known; give \"ADE20K:split=TRAIN\".*\"Folder:split=NAME\""):
        make_dataset(descriptor, tmp_path)


def test_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images.training does not exist; check datasets\.root"):
        make_dataset(TRAIN, tmp_path)
    with pytest.raises(UsageError, match=r"set datasets\.root"):
        make_dataset(TRAIN, "")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for folder in ("images/training", "annotations/training"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"images.training holds no images; put files there that end with \.jpg, .*\.png"
    ):
        make_dataset(TRAIN, tmp_path)


def test_an_image_without_mask_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        add_sample(tmp_path, name)
    for name in ("b", "c"):
        (tmp_path / f"annotations/training/{name}.png").unlink()
    with pytest.raises(
        DataError, match=r"b\.png has no mask \(and 1 more like it\); add .*annotations.training.b\.png"
    ):
        make_dataset(TRAIN, tmp_path)


def test_a_mask_without_image_is_named(tmp_path: Path) -> None:
    add_sample(tmp_path, "a")
    add_sample(tmp_path, "b")
    (tmp_path / "images/training/b.png").rename(tmp_path / "images/training/b.gif")
    with pytest.raises(DataError, match=r"annotations.training.b\.png has no image; remove it, or add .*\.jpg"):
        make_dataset(TRAIN, tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    add_sample(tmp_path, "a")
    add_sample(tmp_path, "a", suffix=".jpg")
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same name"):
        make_dataset(TRAIN, tmp_path)


# ---- what is read


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_all_images_of_eight_bits_become_rgb(tmp_path: Path, mode: str, seeded: int) -> None:
    colours = Image.fromarray(np.random.randint(0, 256, (5, 7, 3), dtype=np.uint8)).convert(mode)
    colours.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(colours.convert("RGB")))


def test_a_rotation_in_the_exif_data_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees when shown
    save_pixels(tmp_path / "a.jpg", np.zeros((5, 7, 3), dtype=np.uint8), exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 5, 7)


def test_images_of_sixteen_bits_are_refused(tmp_path: Path) -> None:
    message = r"has more than 8 bits per channel; scale the images of the whole dataset"
    for suffix in (".png", ".tif"):
        with pytest.raises(DataError, match=rf"grey\{suffix} {message}"):
            read_image(save_pixels(tmp_path / f"grey{suffix}", np.zeros((4, 4), dtype=np.uint16)))
    with pytest.raises(DataError, match=rf"float\.tif {message}"):
        read_image(save_pixels(tmp_path / "float.tif", np.zeros((4, 4), dtype=np.float32)))


def test_colours_of_sixteen_bits_are_refused_although_pillow_would_open_them(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", [[300, 200, 100, 65535, 0, 1]], 16, COLOUR)
    assert Image.open(path).mode == "RGB"
    with pytest.raises(DataError, match=r"a\.png has more than 8 bits per channel"):
        read_image(path)


def test_a_file_of_several_pages_is_refused(tmp_path: Path) -> None:
    page = Image.new("RGB", (4, 4))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match=r"a\.tif holds 3 images; save each in a file of its own"):
        read_image(tmp_path / "a.tif")


def test_masks_of_eight_and_sixteen_bits_and_palettes_hold_their_numbers(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [254, 255, 7]])
    eight = save_pixels(tmp_path / "8.png", numbers.astype(np.uint8))
    sixteen = save_pixels(tmp_path / "16.png", numbers.astype(np.uint16))
    palette = Image.fromarray(numbers.astype(np.uint8)).convert("P")
    palette.putdata(numbers.ravel().tolist())
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "p.png")
    for path in (eight, sixteen, tmp_path / "p.png"):
        assert read_mask(path).tolist() == numbers.tolist()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_hold_their_numbers(tmp_path: Path, bits: int) -> None:
    rows = [[0, 1, 2**bits - 1, 1], [1, 0, 0, 2**bits - 2]]
    assert read_mask(write_png(tmp_path / "a.png", rows, bits)).tolist() == rows


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_with_colours_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=rf"a\.png has colours or transparency \(mode {mode}\); a mask is a PNG with one"
    ):
        read_mask(tmp_path / "a.png")


def test_a_tiff_with_a_second_page_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    (num_tags,) = struct.unpack_from("<H", data, 8)  # the first page is described there; TIFF 6.0, section 2
    struct.pack_into("<I", data, 10 + 12 * num_tags, len(data))  # where the second one is: behind the end
    path.write_bytes(data + bytes(6))  # a page without any tag
    with pytest.raises(DataError, match=r"a\.tif cannot be read as an image \(Missing dimensions\)"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "absent"])
def test_a_damaged_file_is_named(tmp_path: Path, read, damage: str, seeded: int) -> None:
    path = save_pixels(tmp_path / "a.png", np.random.randint(0, 256, (40, 40), dtype=np.uint8))
    content = {"text": b"hello", "empty": b"", "truncated": path.read_bytes()[:300]}
    path.unlink()
    if damage != "absent":
        path.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image \(.+\); replace or remove the file"):
        read(path)


# ---- whether the two fit


def test_unequal_sizes_are_refused_with_both_files(tmp_path: Path) -> None:
    add_sample(tmp_path, "a", size=(6, 8))
    save_pixels(tmp_path / "annotations/training/a.png", np.zeros((6, 9), dtype=np.uint8))
    message = r"images.training.a\.png has 6 x 8 pixels .* but its mask .*annotations.training.a\.png has 6 x 9; they"
    with pytest.raises(DataError, match=message):
        make_dataset(TRAIN, tmp_path)[0]


def test_swapped_sides_hint_at_the_exif_rotation(tmp_path: Path) -> None:
    add_sample(tmp_path, "a", size=(6, 8))
    save_pixels(tmp_path / "annotations/training/a.png", np.zeros((8, 6), dtype=np.uint8))
    with pytest.raises(DataError, match="the sides are swapped: .* EXIF"):
        make_dataset(TRAIN, tmp_path)[0]


def test_labels_are_checked_whenever_the_number_of_classes_is_known(tmp_path: Path) -> None:
    add_sample(tmp_path, "a", label=3)
    assert make_dataset(TRAIN, tmp_path)[0].label.max() == 3
    assert make_dataset(TRAIN, tmp_path, num_classes=4)[0].label.max() == 3
    assert make_dataset(TRAIN, tmp_path, num_classes=3, reduce_zero_label=True)[0].label.max() == 3
    with pytest.raises(DataError, match=r"annotations.training.a\.png holds the label 3; with 3 classes"):
        make_dataset(TRAIN, tmp_path, num_classes=3)[0]


def test_the_scratch_assay_is_a_dataset(tmp_path: Path, shared_folder: Path) -> None:
    root = make_scratch_assay_folder(shared_folder, tmp_path)
    train = make_dataset(TRAIN, root, num_classes=NUM_CLASSES)
    assert train.names == [f"scratch_{frame:03d}" for frame in range(2, 10)]
    assert make_dataset("ADE20K:split=VAL", root).names == ["scratch_000", "scratch_001"]
    sample = train[3]
    assert sample.image.shape == (3, 210, 576)
    is_nucleus = sample.label == 2
    assert sample.image[0][is_nucleus].float().mean() > 2 * sample.image[0][~is_nucleus].float().mean()

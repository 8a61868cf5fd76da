"""Pictures of label maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from dinov3.eval.segmentation.evaluation.overlays import (
    GAP,
    GREY,
    LEGEND_ROW,
    draw_overlay,
    palette,
    safe_stem,
    save_overlay,
)


def square(height=24, width=40):
    """White image; class 1 everywhere but for a block of class 2 and a column of ignored pixels."""
    label = torch.ones(height, width, dtype=torch.int64)
    label[4:12, 6:16] = 2
    label[:, 30:] = 255
    return torch.full((3, height, width), 255, dtype=torch.uint8), label


def half(colour):
    return tuple(round((255 + channel) / 2) for channel in colour)


def test_pixels_have_the_colours_of_their_classes():
    image, label = square()
    prediction = torch.full_like(label, 2)
    picture = draw_overlay(image, label, prediction, 3)
    _, orange, blue = palette(3)
    assert picture.getpixel((0, 0)) == half(orange)  # x, y
    assert picture.getpixel((9, 8)) == half(blue)
    right = 40 + GAP
    assert picture.getpixel((right, 0)) == half(blue)
    assert picture.getpixel((right - 1, 0)) == (255, 255, 255)


def test_contours_are_opaque():
    image, label = square()
    picture = draw_overlay(image, label, label, 3)
    _, orange, blue = palette(3)
    assert picture.getpixel((5, 8)) == orange  # left of the block
    assert picture.getpixel((15, 8)) == blue  # its last column
    assert picture.getpixel((14, 8)) == half(blue)


def test_ignored_pixels_are_striped():
    image, label = square()
    picture = np.array(draw_overlay(image, label, torch.ones_like(label), 3))[:24, 30:40]
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert colours == {(GREY, GREY, GREY), (255, 255, 255)}


def test_legend_shows_the_classes_that_occur():
    image, label = square(24, 400)
    names = ["back", "cell", "wound", "never"]
    picture = draw_overlay(image, label, torch.ones_like(label), 4, names)
    assert picture.size == (400 + GAP + 400, 24 + GAP + 2 * LEGEND_ROW)
    top = 24 + GAP + LEGEND_ROW  # below the titles of the panels
    swatches = [picture.getpixel((160 * column, top)) for column in range(4)]
    assert swatches == [palette(4)[1], palette(4)[2], (GREY, GREY, GREY), (255, 255, 255)]
    without_names = draw_overlay(image, label, torch.ones_like(label), 4)
    assert picture.tobytes() != without_names.tobytes()


def test_many_classes_take_several_rows():
    image = torch.zeros(3, 30, 150, dtype=torch.uint8)
    label = torch.arange(150).expand(30, -1)
    picture = draw_overlay(image, label, label, 150, ["\N{GREEK SMALL LETTER ALPHA}"] * 150)
    assert picture.size == (150 + GAP + 150, 30 + GAP + 151 * LEGEND_ROW)


@pytest.mark.parametrize("num_classes", [2, 8, 30, 150, 254])
def test_colours_differ_from_each_other_and_from_grey(num_classes):
    colours = np.array([*palette(num_classes), (GREY, GREY, GREY)], dtype=np.uint8)
    lab = rgb2lab(colours)
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(len(lab))
    assert distances.min() > (10 if num_classes > 30 else 20)
    assert palette(num_classes) == palette(254)[:num_classes]


@pytest.mark.parametrize("name", ["ADE_val_00000001", "frame-3.v2", "écran"])
def test_plain_names_stay(name):
    assert safe_stem(name) == name


def test_other_names_become_safe_and_stay_different():
    names = ["a/b", "a_b", "a\\b", "../../etc/passwd", "..", "", "x" * 300, "x" * 299, "é" * 200, "a b", "a:b"]
    stems = [safe_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    for stem in stems:
        assert "/" not in stem and "\\" not in stem and not stem.startswith(".") and ":" not in stem
        assert 0 < len(stem.encode()) < 120


def test_picture_is_written_into_the_folder(tmp_path):
    image, label = square()
    path = save_overlay(tmp_path / "overlays", "../patient 1", image, label, label, 3)
    assert path.parent == tmp_path / "overlays"
    assert [entry.name for entry in tmp_path.iterdir()] == ["overlays"]
    assert Image.open(path).tobytes() == draw_overlay(image, label, label, 3).tobytes()

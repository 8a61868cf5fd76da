from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.utilities.overlay_plots import color_cycle, generate_overlay, hex_to_rgb
from tests.recorded.overlay_cases import picture_arrays

RECORDED = Path(__file__).resolve().parents[2] / "recorded" / "overlays.npz"


@pytest.mark.oracle
@pytest.mark.parametrize("name", picture_arrays())
def test_pixels_equal_upstreams(name):
    image, labels, options = picture_arrays()[name]
    before = image.copy()
    with np.load(RECORDED) as recorded:
        np.testing.assert_array_equal(generate_overlay(image, labels, **options), recorded[f"generate_overlay/{name}"])
    np.testing.assert_array_equal(image, before)


def test_a_picture_by_hand():
    overlay = generate_overlay(
        np.array([[0, 10], [20, 40]]), np.array([[0, 0], [1, 1]]), None, ("000000", "ff0000"), overlay_intensity=1
    )
    # grey 0, 63.75, 127.5, 255; red adds 255 where the label is 1; the brightest, 510, becomes 255
    assert overlay.tolist() == [[[0] * 3, [31] * 3], [[191, 63, 63], [255, 127, 127]]]
    assert overlay.dtype == np.uint8


def test_a_colour_image_keeps_its_colours():
    """Upstream describes this and refuses it."""
    image = np.zeros((2, 2, 3))
    image[0, 0] = [0, 100, 200]
    assert generate_overlay(image, np.zeros((2, 2), int)).tolist() == [[[0, 127, 255], [0] * 3], [[0] * 3, [0] * 3]]


@pytest.mark.parametrize("value", [0, -3.5, 200])
def test_an_image_without_contrast_is_black_under_its_labels(value):
    """Upstream divides by zero."""
    labels = np.array([[0, 1]])
    overlay = generate_overlay(np.full((1, 2), value), labels, color_cycle=("000000", "0080ff"))
    assert overlay.tolist() == [[[0, 0, 0], [0, 128, 255]]]
    assert not generate_overlay(np.full((1, 2), value), labels * 0).any()


def test_there_are_colours_for_any_number_of_labels():
    """Upstream has fifteen and then fails; black is for the background only."""
    labels = np.arange(40).reshape(5, 8)
    overlay = generate_overlay(np.zeros((5, 8)), labels, overlay_intensity=1).reshape(-1, 3)
    assert overlay[1:].any(axis=1).all()
    repeat = len(color_cycle) - 1
    np.testing.assert_array_equal(overlay[1 : 1 + repeat], overlay[1 + repeat : 1 + 2 * repeat])


@pytest.mark.parametrize(("image", "labels"), [((4, 4, 2), (4, 4)), ((2, 4, 4, 1), (4, 4)), ((4, 4), (4, 5))])
def test_shapes_that_do_not_fit_are_refused(image, labels):
    with pytest.raises(UsageError, match="image must be two-dimensional"):
        generate_overlay(np.zeros(image), np.zeros(labels, int))


def test_colours_are_six_hexadecimal_digits():
    assert hex_to_rgb("4363d8") == (67, 99, 216)
    for text in ("4363d", "4363d8ff", "white!", ""):
        with pytest.raises(UsageError, match="six hexadecimal digits"):
            hex_to_rgb(text)

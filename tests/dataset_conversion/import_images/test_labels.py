"""From the colours and values of masks to labels: the golden examples of the importer, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.dataset_conversion.import_images.conftest import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    WHITE,
    Run,
    save,
    save_palette,
    save_photo,
)

AV = ("--labels", "artery=#ff0000", "vein=#0000ff", "crossing=#00ff00", "ignore=#ffffff")
PLACES = ("-i", "images", "-m", "masks")


def test_colours_become_labels_in_their_order_and_ignore_the_last(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, RED], [BLUE, WHITE]])
    done = run(*PLACES, *AV)
    assert done.code == 0
    assert done.labels("a") == [[0, 1], [2, 4]]
    assert done.description["labels"] == {"background": 0, "artery": 1, "vein": 2, "crossing": 3, "ignore": 4}
    assert done.description["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert "no mask has a pixel of crossing" in done.out


def test_palettes_are_colours_or_indices_as_the_labels_say(run: Run) -> None:
    save_photo("images/a.png")
    save_palette("masks/a.png", [[0, 1], [2, 3]], [BLACK, RED, BLUE, WHITE])
    assert run(*PLACES, *AV).labels("a") == [[0, 1], [2, 4]]
    done = run(*PLACES, "--labels", "artery=1", "vein=2", "ignore=3", "--overwrite")
    assert done.labels("a") == [[0, 1], [2, 3]]
    assert done.description["labels"]["ignore"] == 3


def test_a_range_of_grey_values(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[0, 255], [254, 0]])
    assert run(*PLACES, "--labels", "vessel=128-255").labels("a") == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[False, True]]),
        np.array([[0, 1]], np.uint8),
        np.array([[0, 255]], np.uint8),
        np.array([[0, 38]], np.uint8),
        np.array([[BLACK, RED]], np.uint8),
        np.array([[0, 1]], np.uint16),
    ],
    ids=["1 bit", "0 and 1", "0 and 255", "0 and 38", "black and red", "16 bits"],
)
def test_binary_masks_need_no_labels(run: Run, mask: np.ndarray) -> None:
    save_photo("images/a.png", shape=(1, 2, 3))
    save("masks/a.png", mask)
    done = run(*PLACES)
    assert done.labels("a") == [[0, 1]]
    assert done.description["labels"] == {"background": 0, "foreground": 1}
    assert run(*PLACES, "--labels", "vessel", "--overwrite").description["labels"] == {"background": 0, "vessel": 1}


def test_masks_are_binary_together_not_one_by_one(run: Run) -> None:
    for name, value in (("a", 1), ("b", 255)):
        save_photo(f"images/{name}.png", seed=value)
        save(f"masks/{name}.png", [[0, value], [0, 0]])
    done = run(*PLACES)
    assert done.code == 2
    assert "3 values in 2 masks: 0 75.0 %" in done.err
    assert list(done.raw.iterdir()) == []


def test_a_colour_beside_the_table_is_an_error_that_names_it_and_the_cure(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, (254, 3, 1)], [BLUE, WHITE]])
    done = run(*PLACES, *AV)
    assert done.code == 3
    # The distance is the root of 1 + 9 + 1.
    assert "#fe0301 at 1 pixel (the first at row 0, column 1)" in done.err
    assert "artery (#ff0000), 3.32 away; add it to --labels, or take it for artery (#ff0000) with --snap 4" in done.err
    assert list(done.raw.iterdir()) == []
    done = run(*PLACES, *AV, "--snap", "8")
    assert done.labels("a") == [[0, 1], [2, 4]]
    assert done.rows()[0]["snapped"] == "1"
    assert "the largest share is 25.00%, in a" in done.out


def test_a_colour_far_from_all_is_not_snapped(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, (120, 120, 0)], [BLUE, (0, 120, 120)]])
    done = run(*PLACES, *AV, "--snap", "30")
    assert done.code == 3
    assert "--snap " not in done.err
    assert "1 other colours or values are unknown too" in done.err


def test_unnamed_colours_are_listed_and_nothing_is_written(run: Run) -> None:
    save_photo("images/a.png", shape=(2, 4, 3))
    save_photo("images/b.png", seed=1, shape=(2, 4, 3))
    save("masks/a.png", [[BLACK] * 4, [RED, RED, BLUE, BLACK]])
    save("masks/b.png", [[BLACK] * 4, [BLACK, RED, BLACK, BLACK]])
    done = run(*PLACES)
    assert done.code == 2
    assert "3 colours in 2 masks: #000000 75.0 %, #ff0000 18.8 %, #0000ff 6.2 % (1 mask)" in done.out
    assert "--labels class1=#ff0000 class2=#0000ff" in done.err
    assert list(done.raw.iterdir()) == []


def test_jpeg_masks_are_binary_by_their_share_of_black_and_white(run: Run) -> None:
    y, x = np.mgrid[:64, :64]
    white = np.uint8(255) * ((x - 30) ** 2 + (y - 33) ** 2 < 20**2)
    save_photo("images/a.png", shape=(64, 64, 3))
    save("masks/a.jpg", white, quality=90)
    stored = np.asarray(Image.open("masks/a.jpg"))
    num_between = int(((stored > 0) & (stored < 255)).sum())
    assert num_between > 0
    for words in ((), ("--labels", "vessel=255")):
        done = run(*PLACES, *words, "--overwrite")
        assert done.labels("a") == (stored >= 128).astype(int).tolist()
        assert done.rows()[0]["snapped"] == str(num_between)
    done = run(*PLACES, "--threshold", "250", "--overwrite")
    assert done.labels("a") == (stored >= 250).astype(int).tolist()


def test_jpeg_colours_snap_by_themselves(run: Run) -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:32, :32], mask[32:, 32:] = RED, BLUE
    save_photo("images/a.png", shape=(64, 64, 3))
    save("masks/a.jpg", mask, quality=100, subsampling=0)
    done = run(*PLACES, "--labels", "artery=#ff0000", "vein=#0000ff")
    assert done.labels("a") == (mask[..., 0] // 255 + mask[..., 2] // 255 * 2).tolist()


def test_threshold_is_only_for_binary_masks(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[0, 100], [200, 255]])
    done = run(*PLACES, "--threshold", "128")
    assert done.code == 2
    assert "--threshold is for binary masks" in done.err


def test_black_may_be_a_class_and_another_value_background(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[0, 128], [255, 255]])
    done = run(*PLACES, "--labels", "cup=0", "disc=128", "background=255")
    assert done.labels("a") == [[1, 2], [0, 0]]


def test_several_colours_of_one_class(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, RED], [BLUE, GREEN]])
    assert run(*PLACES, "--labels", "vessel=#ff0000,#0000ff", "other=#00ff00").labels("a") == [[0, 1], [1, 2]]


def test_values_for_a_coloured_mask_are_refused(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, RED], [BLUE, WHITE]])
    done = run(*PLACES, "--labels", "artery=1")
    assert done.code == 3
    assert "is a colour mask (such as #ff0000 at row 0, column 1)" in done.err


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a=#ff0000", "b=#ff0000"], "gives #ff0000 to both a and b"),
        (["a=1-5", "b=5"], "gives 5 to both a and b"),
        (["a=1", "a=2"], "names a twice"),
        (["a=#ff0000", "b=2"], "mixes colours and values"),
        (["a=#ff00"], "colours have six digits"),
        (["a=9-3"], "from a lower to a higher value"),
        (["a="], "is not of the form"),
        (["ignore=1"], "no class besides the background"),
        (["a=R"], "says nothing about a"),
    ],
)
def test_labels_that_make_no_sense(run: Run, labels: list[str], said: str) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, RED], [BLUE, WHITE]])
    done = run(*PLACES, "--labels", *labels)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_16_bit_pictures_stay_so(run: Run) -> None:
    grey = np.array([[0, 300], [40000, 65535]], np.uint16)
    Path("images").mkdir()
    tifffile.imwrite("images/a.tif", grey)
    save("masks/a.png", [[0, 255], [255, 0]])
    done = run(*PLACES)
    np.testing.assert_array_equal(done.image("a"), grey)
    assert done.image("a").dtype == np.uint16
    assert done.description["channel_names"] == {"0": "grey"}


def test_16_bit_colours_are_one_file_per_channel(run: Run) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (2, 2, 3), dtype=np.uint16)
    Path("images").mkdir()
    tifffile.imwrite("images/a.tif", colours, photometric="rgb")
    save("masks/a.png", [[0, 255], [255, 0]])
    done = run(*PLACES)
    files = [done.folder / "imagesTr" / f"a_000{channel}.png" for channel in range(3)]
    np.testing.assert_array_equal(np.dstack([np.asarray(Image.open(file)) for file in files]), colours)


def test_mixed_depths_are_refused_or_scaled(run: Run) -> None:
    Path("images").mkdir()
    tifffile.imwrite("images/a.tif", np.array([[0, 300], [40000, 65535]], np.uint16))
    save("images/b.png", [[0, 1], [2, 255]])
    for name in "ab":
        save(f"masks/{name}.png", [[0, 255], [255, 0]])
    done = run(*PLACES)
    assert done.code == 3
    assert "a.tif has 16 bits per channel and" in done.err
    done = run(*PLACES, "--depth", "16")
    assert done.image("b").tolist() == [[0, 257], [514, 65535]]


def test_alpha_is_dropped_if_opaque_and_refused_if_not(run: Run) -> None:
    grey_alpha = np.full((2, 2, 2), 255, np.uint8)
    grey_alpha[..., 0] = [[1, 2], [3, 4]]
    save("images/a.png", grey_alpha)
    save("masks/a.png", [[0, 255], [255, 0]])
    assert run(*PLACES).image("a").tolist() == [[1, 2], [3, 4]]
    assert run(*PLACES, "--alpha", "refuse", "--overwrite").code == 3
    grey_alpha[1, 0, 1] = 254
    save("images/a.png", grey_alpha)
    done = run(*PLACES, "--overwrite")
    assert done.code == 3
    assert "images/a.png is transparent at 1 pixels, the first at row 1, column 0 (alpha 254)" in done.err


def test_grey_among_colours_is_repeated_with_a_warning(run: Run) -> None:
    save("images/a.png", [[1, 2], [3, 4]])
    save_photo("images/b.png")
    for name in "ab":
        save(f"masks/{name}.png", [[0, 255], [255, 0]])
    done = run(*PLACES)
    assert done.image("a").tolist() == [[[1] * 3, [2] * 3], [[3] * 3, [4] * 3]]
    assert "1 grey picture among coloured ones, repeated to R, G and B: a.png" in done.out
    assert run(*PLACES, "--grey", "refuse", "--overwrite").code == 3


def test_exif_orientation_turns_the_picture(run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn clockwise by 90 degrees
    pixels = np.random.default_rng(0).integers(1, 256, (2, 3, 3), dtype=np.uint8)
    save("images/a.png", pixels, exif=exif)
    save("masks/a.png", [[0, 255], [255, 0], [0, 0]])
    done = run(*PLACES)
    np.testing.assert_array_equal(done.image("a"), np.rot90(pixels, -1))
    assert "a.png was turned by its EXIF orientation" in done.out


def test_regions_overlap_in_a_region_of_its_own(run: Run) -> None:
    save_photo("images/a.png")
    save("masks/a.png", [[BLACK, RED], [BLUE, GREEN]])
    regions = ["vessel=artery+vein+crossing", "artery=artery+crossing", "vein=vein+crossing"]
    done = run(*PLACES, *AV, "--regions", *regions)
    assert done.labels("a") == [[0, 1], [2, 3]]
    labels = {"background": 0, "vessel": [1, 2, 3], "artery": [1, 3], "vein": [2, 3], "crossing": 3, "ignore": 4}
    assert done.description["labels"] == labels
    assert done.description["regions_class_order"] == [1, 1, 2, 3]
    done = run(*PLACES, *AV, "--regions", "artery=artery+crossing", "--overwrite")
    assert done.code == 2
    assert "--regions leaves out vein" in done.err

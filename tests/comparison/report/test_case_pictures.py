"""The choice of cases, and the pictures of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2.comparison.report.case_pictures import (
    ChosenCase,
    case_pictures,
    shown_runs,
    worst_case_pictures,
    worst_cases,
)
from nnunetv2.comparison.report.slice_panels import LONGEST_SIDE, choose_window, ground_png, layer_png
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.scores import Run
from nnunetv2.errors import DataError
from tests.comparison.report.planted import METHODS, planted, score_table

PREDICTED_SLICE = 3


class Reader:
    """A square of class 1 in the reference; predictions move it in one slice."""

    spacing = [4.0, 1.0, 2.0]

    def __init__(self, num_channels: int = 1, image_shape: tuple[int, ...] = (5, 60, 40)) -> None:
        self.num_channels, self.image_shape = num_channels, image_shape

    def read_seg(self, file: str) -> tuple[np.ndarray, dict]:
        labels = np.zeros((5, 60, 40), dtype=np.float32)
        labels[1:, 20:30, 10:20] = 1
        labels[1:, 24:26, 14:16] = 2
        if file.startswith("prediction"):
            labels[PREDICTED_SLICE] = np.roll(labels[PREDICTED_SLICE], 6, axis=0)
        return labels[None], {"spacing": self.spacing}

    def read_images(self, files: tuple[str, ...]) -> tuple[np.ndarray, dict]:
        if "broken" in files[0]:
            raise DataError("damaged")
        generator = np.random.default_rng(0)
        return generator.normal(size=(self.num_channels, *self.image_shape)).astype(np.float32), {}


def drawn(reader: Reader, images: dict[str, list[Path]], **settings: object) -> object:
    runs = [Run(name, Path(), {"a": Path(f"prediction/{name}")}, {}) for name in ("one", "two")]
    chosen = [ChosenCase("a", "why", {"one": "Dice 0.5"})]
    classes = settings.pop("classes", {"square": 1, "core": 2})
    return case_pictures(chosen, images, {"a": Path("reference/a")}, runs, reader, classes, **settings)[0]


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_window_is_where_predictions_differ_with_the_proportions_of_the_body() -> None:
    picture = drawn(Reader(), {"a": [Path("image")]})
    assert picture.where == "slice 4 of 5"
    # rows 20..36 and 16 around, at 1 mm; columns 10..20 and 16 around, cut at the border, at 2 mm
    assert picture.size == (round(36 * 2 * LONGEST_SIDE / 72), round(48 * LONGEST_SIDE / 72))
    assert [panel.title for panel in picture.panels] == ["Image", "Reference", "one", "two"]
    assert picture.panels[2].note == "Dice 0.5"
    assert picture.classes == ((0, "square"), (1, "core"))
    for panel in picture.panels[1:]:
        assert opened(panel.layer).size == picture.size
        assert len(panel.layer) < 150_000
    assert opened(picture.ground).mode == "L"
    assert len(picture.ground) < 150_000


def test_layer_fills_classes_and_outlines_the_reference() -> None:
    reference = np.zeros((1, 60, 60), dtype=int)
    reference[0, 20:40, 20:40] = 2
    window = choose_window(reference, [np.zeros_like(reference)], (1, 1, 1))
    filled = np.array(opened(layer_png(window.cut(reference), None, window)).convert("RGBA"))
    height, width = filled.shape[:2]
    assert tuple(filled[height // 2, width // 2][:3]) == (0x56, 0xB4, 0xE9)
    assert 0 < filled[height // 2, width // 2][3] < 255
    assert filled[0, 0, 3] == 0
    outlined = np.array(opened(layer_png(None, window.cut(reference), window)).convert("RGBA"))
    assert outlined[height // 2, width // 2, 3] == 0
    assert (outlined == (255, 255, 255, 255)).all(axis=-1).any()


def test_one_file_of_three_channels_is_shown_in_colour() -> None:
    ground = opened(drawn(Reader(3), {"a": [Path("rgb")]}).ground).convert("RGB")
    red, green, _ = np.moveaxis(np.array(ground), -1, 0)
    assert (red != green).any()
    assert opened(drawn(Reader(1), {"a": [Path("t1"), Path("t2"), Path("flair")]}).ground).mode == "L"


@pytest.mark.parametrize(
    ("reader", "images"),
    [
        (Reader(), {}),
        (Reader(), {"a": [Path("broken")]}),
        (Reader(image_shape=(5, 60, 41)), {"a": [Path("other")]}),
    ],
)
def test_without_image_the_ground_is_plain(reader: Reader, images: dict[str, list[Path]]) -> None:
    picture = drawn(reader, images)
    assert picture.panels[0].title == "No image"
    assert len(opened(picture.ground).getcolors()) == 1


def test_of_overlapping_regions_the_smaller_is_on_top() -> None:
    picture = drawn(Reader(), {}, classes={"core": 2, "whole": (1, 2)})
    assert picture.classes == ((0, "core"), (1, "whole"))


def test_ignored_voxels_are_in_no_segmentation() -> None:
    picture = drawn(Reader(), {}, classes={"square": 1}, ignore_label=1)
    assert picture.where == "slice 4 of 5"
    reference = opened(picture.panels[1].layer).convert("RGBA")
    assert np.array(reference)[..., 3].max() == 0


def test_constant_image_is_drawn() -> None:
    reference = np.ones((1, 8, 8), dtype=int)
    window = choose_window(reference, [reference], (1, 1, 1))
    assert opened(ground_png(np.zeros((8, 8)), window)).size == (LONGEST_SIDE, LONGEST_SIDE)


def test_nothing_at_all_shows_the_whole_slice() -> None:
    nothing = np.zeros((3, 10, 20), dtype=int)
    window = choose_window(nothing, [nothing], (1, 1, 1))
    assert (window.index, window.rows, window.columns) == (0, slice(0, 10), slice(0, 20))


def test_worst_cases_are_low_for_all_or_very_different(five: Comparison) -> None:
    table = five.scores
    values = {name: array.copy() for name, array in table.values.items()}
    low, apart = table.cases.index("case_020"), table.cases.index("case_025")
    values["Dice"][:, low] = 0.01
    values["Dice"][: len(table.runs) // 2, apart] = 0.99
    values["Dice"][len(table.runs) // 2 :, apart] = 0.2
    comparison = replace(five, scores=replace(table, values=values))
    chosen = worst_cases(comparison, most=4)
    assert [each.case for each in chosen[:2]] == ["case_020", "case_025"]
    assert chosen[0].reason == "Dice 0.010, mean over methods and trainings: among the worst"
    assert "apart in Dice, each the mean over its trainings: among" in chosen[1].reason
    assert len({each.case for each in chosen}) == len(chosen) == 4
    assert chosen[0].scores[table.methods[0]] == "Dice 0.010, seed 0; mean 0.010"


def test_panels_tell_the_score_of_their_run_and_the_mean_that_the_heading_speaks_of() -> None:
    table = score_table(METHODS[:3], 2, 5, ("a",), ("HD95",), 0.01)
    values = np.ones((6, 5, 1))
    values[:, 3, 0] = 10, 20, 30, 50, 60, 60
    runs = tuple(replace(run, seed=None if run.method == METHODS[1] else run.seed) for run in table.runs)
    # The runs of the last method are copies of each other, hence one training.
    predicted = np.concatenate([table.num_predicted[:5], table.num_predicted[4:5]])
    comparison = planted(3, 2, 5, ("a",), metrics=("HD95",))
    comparison = replace(comparison, scores=replace(table, runs=runs, values={"HD95": values}, num_predicted=predicted))
    (chosen,) = worst_cases(comparison, most=1)
    assert chosen.reason == "HD95 38.33 mm, mean over methods and trainings: among the worst"
    assert list(chosen.scores.values()) == [
        "HD95 10.00 mm, seed 0; mean 15.00",
        "HD95 30.00 mm, run 1; mean 40.00",
        "HD95 60.00 mm",
    ]
    once = planted(2, 1, 5, ("a",), metrics=("HD95",))
    (chosen,) = worst_cases(once, most=1)
    assert "mean over the methods: among" in chosen.reason
    assert "mean" not in "".join(chosen.scores.values())


def test_worst_distances_are_the_largest() -> None:
    comparison = planted(2, 1, 6, ("a",), metrics=("HD95",))
    distances = comparison.scores.values["HD95"].mean(axis=(0, 2))
    assert worst_cases(comparison, most=1)[0].case == comparison.scores.cases[int(np.argmax(distances))]


def test_one_run_of_each_method_is_shown(five: Comparison) -> None:
    assert [(run.method, run.number) for run in shown_runs(five.scores)] == [(name, 0) for name in five.scores.methods]


def test_pictures_of_a_comparison_go_in_the_order_of_the_choice(smallest: Comparison) -> None:
    references = {case: Path("reference") for case in smallest.scores.cases}
    pictures = worst_case_pictures(smallest, {}, references, Reader(), {"nucleus": 1})
    assert [picture.case for picture in pictures] == [chosen.case for chosen in worst_cases(smallest)]

"""The whole comparison, on predictions of which it is known which are better."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its users know
from scipy import ndimage

from nnunetv2.comparison.entry_point import compare_entry
from nnunetv2.comparison.results import Comparison

pytestmark = pytest.mark.slow

DATASET = "Dataset900_Planted"
NUM_CASES = 8
SPACING = (1.0, 1.5, 2.0)  # x, y, z
QUICK = ("--bootstrap", "200", "--metrics", "Dice", "HD95", "NSD")

Degrade = Callable[[np.ndarray], np.ndarray]


def write(labels: np.ndarray, path: Path, spacing: Sequence[float] = SPACING) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def reference(number: int) -> np.ndarray:
    """Two ellipsoids whose places and sizes depend on the case."""
    grid = np.indices((10, 24, 20)).astype(float)
    labels = np.zeros((10, 24, 20), dtype=np.uint8)
    for label, centre, radius in ((1, (4, 8, 9), 4 + 0.3 * number), (2, (6, 17, 9), 4.5 - 0.2 * number)):
        distance = sum(
            ((axis - place) / scale) ** 2 for axis, place, scale in zip(grid, centre, (0.6, 1, 1), strict=True)
        )
        labels[distance <= radius**2] = label
    return labels


def shifted(labels: np.ndarray, voxels: int) -> np.ndarray:
    return np.roll(labels, voxels, axis=2)


def eroded(labels: np.ndarray) -> np.ndarray:
    return np.where(ndimage.binary_erosion(labels > 0, iterations=2), labels, 0)


METHODS: dict[str, Degrade] = {
    "good": lambda labels: labels,
    "shift1": lambda labels: shifted(labels, 1),
    "shift3": lambda labels: shifted(labels, 3),
    "eroded": eroded,
}
ORDER = ["good", "shift1", "shift3", "eroded"]


@pytest.fixture
def planted(nnunet_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A raw dataset, and one folder of predictions per method."""
    raw = nnunet_folders["nnUNet_raw"] / DATASET
    names = [f"case_{number}" for number in range(NUM_CASES - 1)] + ["<b>case"]
    for number, name in enumerate(names):
        write(reference(number), raw / "labelsTr" / f"{name}.nii.gz")
        write(reference(number) * 40, raw / "imagesTr" / f"{name}_0000.nii.gz")
        for method, degrade in METHODS.items():
            write(degrade(reference(number)), tmp_path / method / f"{name}.nii.gz")
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "first": 1, "second": 2},
        "numTraining": NUM_CASES,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def run(folder: Path, *arguments: str, methods: Sequence[str] = tuple(METHODS), output: str = "out") -> int:
    words = [f"{method}={folder / method}" for method in methods]
    return compare_entry(["-d", "900", "-m", *words, "-o", str(folder / output), "-np", "1", *QUICK, *arguments])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def compared(folder: Path, methods: Sequence[str]) -> Comparison:
    from nnunetv2.comparison.compare import compare
    from nnunetv2.comparison.settings import CompareSettings

    words = [f"{method}={folder / method}" for method in methods]
    settings = CompareSettings(metrics=("Dice", "HD95"), num_resamples=200)
    return compare(900, words, folder / "api", settings=settings, num_processes=1)


def test_predictions_made_worse_on_purpose_are_ranked_as_they_were_made(planted: Path) -> None:
    comparison = compared(planted, ["shift3", "good", "eroded", "shift1"])
    ranks = {rank.method: rank.mean_then_rank for rank in comparison.ranks if rank.metric == "Dice"}
    assert sorted(ranks, key=ranks.get) == ORDER
    assert all(
        rank.frequencies[int(rank.mean_then_rank) - 1] == 1 for rank in comparison.ranks if rank.metric == "Dice"
    )
    pair = next(each for each in comparison.pairs_of("Dice") if {each.first, each.second} == {"good", "eroded"})
    assert (pair.first, pair.trained.verdict, pair.methods.verdict) == ("good", "better", "not testable")
    assert pair.num_cases == NUM_CASES and pair.means[0] == 1


def test_identical_copies_show_no_difference(planted: Path) -> None:
    shutil.copytree(planted / "shift1", planted / "copy")
    comparison = compared(planted, ["shift1", "copy"])
    for pair in comparison.pairs:
        assert (pair.trained.p, pair.trained.verdict, pair.mean_difference) == (1, "no difference", 0)
    assert {rank.mean_then_rank for rank in comparison.ranks} == {1.5}


def test_the_same_input_gives_the_same_bytes(planted: Path) -> None:
    assert run(planted, output="first") == 0
    first = files_of(planted / "first")
    assert run(planted, output="first") == 0  # now from the scores that are kept
    assert files_of(planted / "first") == first
    elsewhere = planted / "elsewhere"
    for method in METHODS:  # written in another order, into other folders
        for path in sorted((planted / method).iterdir(), reverse=True):
            write(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), elsewhere / method / path.name)
    assert run(elsewhere, output="second") == 0
    assert files_of(elsewhere / "second") == first
    assert {"report.html", "report.md", "per_case.csv", "tests.csv", "table.tex", "comparability.json"} <= set(first)
    html = first["report.html"].decode()
    assert "&lt;b&gt;case" in html and "<b>case" not in html
    assert str(planted) not in html


def test_a_missing_case_is_refused_and_named_and_left_out_for_all_if_allowed(
    planted: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (planted / "eroded" / "case_3.nii.gz").unlink()
    assert run(planted) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("NOT COMPARABLE: cases: eroded has no prediction of case_3")
    assert not (planted / "out" / "report.html").exists()

    assert run(planted, "--allow", "cases") == 0
    per_case = (planted / "out" / "per_case.csv").read_text()
    assert "case_2" in per_case and "case_3" not in per_case
    assert "eroded" in capsys.readouterr().out

    written = files_of(planted / "out")
    assert run(planted) == 4
    assert caplog.messages[-1] == f"{planted / 'out' / 'report.html'} is of an earlier comparison, and stays as it was"
    assert files_of(planted / "out") == written


def test_a_prediction_on_another_grid_is_refused_and_named(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(reference(2), planted / "shift1" / "case_2.nii.gz", spacing=(1.0, 1.5, 2.5))
    assert run(planted, "--allow") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "shift1" in line and "case_2.nii.gz" in line and "spacing" in line
    assert not (planted / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--baseline", "god"), "did you mean good"),
        (("--nsd_tolerance", "1cm"), "accepted are millimetres"),
        (("--nsd_tolerance", "inf"), "accepted is a finite length"),
        (("--margin", "abc"), "--margin is abc; accepted are numbers"),
        (("--margin", "5"), "accepted is a number above 0 and below 1"),
        (("--alpha", "0.5"), "above 0 and below 0.5"),
        (("--metrics", "Dice,NDS"), "did you mean NSD"),
        (("-f", "0"), "folders of predictions have none"),
        (("-o", __file__), "is a file; give a folder"),
        (("--metrics", "dice"), "Dice"),
        (("--allow", "split"), "splits"),
        (("--bootstrap", "10"), "at least 100"),
    ],
)
def test_wrong_arguments_are_one_line(
    planted: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(planted, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_one_method_alone_is_no_comparison(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(planted, methods=["good"]) == 2
    assert "at least two methods" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

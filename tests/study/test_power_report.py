"""`nnUNetv2_study --power`: what is read of a pilot, and what is said of a plan."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.study.methods import validated_cases
from nnunetv2.study.pilot import read_pilot
from nnunetv2.study.power_report import Plan, power_text
from nnunetv2.study.study_config import StudyConfig

HEAD = ("dataset", "method", "seed", "run", "fold", "case", "class", "metric", "value", "n_ref", "n_pred")


def write_report(folder: Path, num_trainings: dict[str, int], classes: tuple[str, ...] = ("a", "b")) -> Path:
    """A table of scores: class `b` counts in even cases only."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with open(folder / "per_case.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        for method, number in num_trainings.items():
            for run in range(number):
                shift = 0.01 * rng.standard_normal()
                for case in range(20):
                    for name in classes:
                        value = "" if name == "b" and case % 2 else 0.8 + shift + 0.03 * rng.standard_normal()
                        writer.writerow(("D", method, run, run, 0, f"case{case}", name, "Dice", value, 9, 9))
    return folder


def test_scores_are_means_over_the_classes_that_count(tmp_path):
    write_report(tmp_path / "comparison", {"unet": 3, "m2f": 2})
    pilot = read_pilot(tmp_path, "Dice")
    assert pilot.folder == tmp_path / "comparison"
    assert {method: scores.shape for method, scores in pilot.methods.items()} == {"unet": (3, 20), "m2f": (2, 20)}
    with open(tmp_path / "comparison" / "per_case.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first = [float(row["value"]) for row in rows if (row["method"], row["run"], row["case"]) == ("m2f", "0", "case0")]
    assert len(first) == 2
    assert np.abs(pilot.methods["m2f"][:, 0] - np.mean(first)).min() < 1e-12  # trainings are in no particular order


def test_only_the_averaged_classes_of_a_report_count(tmp_path):
    write_report(tmp_path, {"unet": 2, "m2f": 2})
    both = read_pilot(tmp_path, "Dice").methods["unet"]
    (tmp_path / "comparison.json").write_text('{"averaged_classes": ["a"]}')
    alone = read_pilot(tmp_path, "Dice").methods["unet"]
    assert np.abs(both - alone)[:, ::2].max() > 0


@pytest.mark.parametrize(
    ("num_trainings", "metric", "message"),
    [
        ({"unet": 1, "m2f": 1}, "Dice", "one training of each method"),
        ({"unet": 3}, "Dice", "has 1 method in Dice; a pilot needs two"),
        ({"unet": 3, "m2f": 3}, "HD95", "has no HD95, the first metric of the study; it has Dice"),
    ],
)
def test_pilots_that_show_too_little_are_refused(tmp_path, num_trainings, metric, message):
    write_report(tmp_path, num_trainings)
    with pytest.raises(UsageError, match=message):
        read_pilot(tmp_path, metric)


def test_a_folder_without_report_is_refused(tmp_path):
    with pytest.raises(UsageError, match="give the report of a pilot"):
        read_pilot(tmp_path, "Dice")


def test_the_report_says_what_the_plan_shows_and_what_others_take(tmp_path):
    pilot = read_pilot(write_report(tmp_path, {"unet": 3, "m2f": 3}), "Dice")
    text = power_text("Dice", pilot, Plan(50, 3, 4, 6, 0.05))
    assert "The study: 50 cases, 3 seeds, 4 models (6 pairs)" in text
    lines = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines() if line.strip()}
    planned, more_seeds = ([float(each) for each in lines[name]] for name in ("the study as planned", "with 20 seeds"))
    assert planned[0] < planned[1] and more_seeds[0] < planned[0]
    assert "level 0.0083 (0.05 over 6 pairs" in text
    table = next(line for line in text.splitlines() if line.startswith("20 seeds"))
    needed = [int(each) for each in table.split()[2:] if each.isdecimal()]
    assert needed[-1] > needed[-2]


def test_fewer_seeds_than_the_test_needs_show_nothing(tmp_path):
    pilot = read_pilot(write_report(tmp_path, {"unet": 3, "m2f": 3}), "Dice")
    assert "cannot show a difference between methods: that takes at least 3 seeds" in power_text(
        "Dice", pilot, Plan(50, 1, 2, 1, 0.05)
    )


def test_the_planned_cases_are_those_that_the_folds_validate(nnunet_folders):
    folder = nnunet_folders["nnUNet_preprocessed"] / "Dataset005_Cells"
    (folder / "gt_segmentations").mkdir(parents=True)
    for case in "abcde":
        (folder / "gt_segmentations" / f"{case}.png").touch()
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "cell": 1}, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(description))
    halves = [(["a", "b"], ["c", "d", "e"]), (["c", "d", "e"], ["a", "b"])]
    splits = [{"train": train, "val": validation} for train, validation in halves]
    (folder / "splits_final.json").write_text(json.dumps(splits))

    def cases(*folds: int | str) -> list[str]:
        return validated_cases(StudyConfig(dataset="5", folds=folds, models={"unet": None}), "Dataset005_Cells")

    assert [cases(0), cases(1, 0), cases("all")] == [["c", "d", "e"], list("abcde"), list("abcde")]

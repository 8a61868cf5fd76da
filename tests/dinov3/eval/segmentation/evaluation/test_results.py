"""The files of an evaluation, read back."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

from dinov3.eval.segmentation.evaluation.results import write_results
from dinov3.eval.segmentation.metrics import SegmentationMetrics


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def same(read: str, value: float) -> bool:
    return read == "" if math.isnan(value) else float(read) == value


@pytest.fixture
def results(seeded):
    counts = SegmentationMetrics(4)
    counts.update(torch.randint(0, 3, (17, 31)), torch.randint(0, 3, (17, 31)))
    return counts.compute()


def test_tables_hold_every_digit(tmp_path, results):
    write_results(results, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    (main,) = table(folder / "results-semantic-segmentation.csv")
    assert main.keys() == results.keys() - {"classes"}
    assert all(same(main[name], results[name]) for name in main)
    rows = table(folder / "results-semantic-segmentation-classes.csv")
    assert [row["class"] for row in rows] == ["0", "1", "2", "3"]
    for read, row in zip(rows, results["classes"], strict=True):
        assert all(same(read[name], row[name]) for name in row)
    assert rows[3]["IoU"] == "", "a class that is nowhere has no IoU"


def test_json_is_the_results_with_null_for_nan(tmp_path, results):
    write_results(results, tmp_path)
    text = (tmp_path / "results-semantic-segmentation.json").read_text()
    read = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert read["mIoU"] == results["mIoU"]
    assert read["classes"][1] == results["classes"][1]
    assert read["classes"][3]["IoU"] is None
    assert read["classes"][3]["reference_pixels"] == 0


def test_a_later_run_replaces_the_files(tmp_path, results):
    write_results(results, tmp_path)
    write_results({**results, "mIoU": 12.5}, tmp_path)
    assert table(tmp_path / "results-semantic-segmentation.csv")[0]["mIoU"] == "12.5"
    assert len(list(tmp_path.iterdir())) == 3


def test_results_without_classes_are_one_table(tmp_path, results):
    write_results(results, tmp_path)
    write_results({"mIoU": 50.0, "aAcc": math.nan}, tmp_path)
    assert table(tmp_path / "results-semantic-segmentation.csv") == [{"mIoU": "50.0", "aAcc": ""}]
    assert not (tmp_path / "results-semantic-segmentation-classes.csv").exists()

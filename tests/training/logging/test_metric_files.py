"""The files of metrics: what stays over resumed, repeated, killed and failing trainings."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest

from nnunetv2.training.logging import metric_files
from nnunetv2.training.logging.metric_files import MetricFiles
from nnunetv2.training.logging.metric_lines import read_metrics


def files_of(folder: Path, name: str = "first") -> MetricFiles:
    return MetricFiles(folder, lambda: {"trainer": name})


def values(loss: float, **more: Any) -> dict[str, Any]:
    return {"train_loss": loss, "dice": {"liver": 0.5, "tumour, large": None}, "lr": [0.1, 0.01], **more}


def lines_in(folder: Path) -> list[dict[str, Any]]:
    """As any program would read them."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows_in(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def train(folder: Path, epochs: range, name: str = "first") -> MetricFiles:
    files = files_of(folder, name)
    for epoch in epochs:
        files.add_epoch(epoch, values(float(epoch)))
    return files


def what_is_in(folder: Path) -> list[Any]:
    """Names of runs and numbers of epochs, in their order."""
    return [line.get("trainer", line.get("epoch", line["type"])) for line in lines_in(folder)]


def test_an_epoch_is_a_line_here_and_a_row_there(tmp_path):
    files = files_of(tmp_path / "new")
    files.add_epoch(0, values(0.25))
    files.add_validation({"mean_fg_dice": 0.75})
    assert lines_in(tmp_path / "new") == [
        {"type": "run", "first_epoch": 0, "trainer": "first"},
        {"type": "epoch", "epoch": 0, **values(0.25)},
        {"type": "validation", "mean_fg_dice": 0.75},
    ]
    assert rows_in(tmp_path / "new") == [
        {
            "epoch": "0",
            "train_loss": "0.25",
            "dice_liver": "0.5",
            "dice_tumour, large": "",
            "lr_0": "0.1",
            "lr_1": "0.01",
        }
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["metrics.csv", "metrics.jsonl"]


def test_what_is_not_finite_is_null(tmp_path):
    files_of(tmp_path).add_epoch(0, {"val_loss": math.nan, "dice": {"liver": math.inf}})
    assert lines_in(tmp_path)[1] == {"type": "epoch", "epoch": 0, "val_loss": None, "dice": {"liver": None}}
    assert rows_in(tmp_path) == [{"epoch": "0", "val_loss": "", "dice_liver": ""}]


def test_before_its_first_epoch_a_training_leaves_its_predecessor_alone(tmp_path):
    train(tmp_path, range(2))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    files_of(tmp_path, "second")
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_training_from_the_beginning_replaces_its_predecessor(tmp_path):
    train(tmp_path, range(3)).add_validation({})
    train(tmp_path, range(1), "second")
    assert what_is_in(tmp_path) == ["second", 0]
    assert [row["epoch"] for row in rows_in(tmp_path)] == ["0"]


def test_a_resumed_training_replaces_the_epochs_that_it_repeats(tmp_path):
    train(tmp_path, range(5))
    train(tmp_path, range(3, 4), "second")  # stopped again before its first checkpoint
    train(tmp_path, range(3, 6), "third")
    assert what_is_in(tmp_path) == ["first", 0, 1, 2, "third", 3, 4, 5]
    assert [row["epoch"] for row in rows_in(tmp_path)] == ["0", "1", "2", "3", "4", "5"]


def test_a_training_made_longer_keeps_its_validation(tmp_path):
    train(tmp_path, range(2)).add_validation({})
    train(tmp_path, range(2, 3), "longer").add_validation({})
    assert what_is_in(tmp_path) == ["first", 0, 1, "validation", "longer", 2, "validation"]


def test_a_validation_by_itself_comes_last(tmp_path):
    train(tmp_path, range(2))
    files_of(tmp_path).add_validation({"mean_fg_dice": 0.5})
    assert what_is_in(tmp_path) == ["first", 0, 1, "validation"]
    assert len(rows_in(tmp_path)) == 2


@pytest.mark.parametrize("size", [1, 20, -1])
def test_half_a_line_of_a_killed_training_is_passed_over_and_removed(tmp_path, size):
    train(tmp_path, range(3))
    whole = (tmp_path / "metrics.jsonl").read_text()
    last = whole.splitlines()[-1]
    (tmp_path / "metrics.jsonl").write_text(whole.removesuffix(f"{last}\n") + last[:size])
    table = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(table[:-5])
    assert [line["epoch"] for line in read_metrics(tmp_path / "metrics.jsonl") if "epoch" in line] == [0, 1]
    train(tmp_path, range(2, 4), "second")
    assert what_is_in(tmp_path) == ["first", 0, 1, "second", 2, 3]
    assert [row["train_loss"] for row in rows_in(tmp_path)] == ["0.0", "1.0", "2.0", "3.0"]


def test_there_may_be_no_file():
    assert read_metrics("/nowhere/metrics.jsonl") == []


def test_later_epochs_are_appended_by_one_small_write(tmp_path, monkeypatch):
    files = train(tmp_path, range(200))
    written: list[int] = []
    append = metric_files._append
    monkeypatch.setattr(metric_files, "_append", lambda path, text: (written.append(len(text)), append(path, text)))
    monkeypatch.setattr(metric_files, "replace_when_complete", None)  # would be called to make a file anew
    monkeypatch.setattr(metric_files, "read_metrics", None)
    files.add_epoch(200, values(1.0))
    assert len(written) == 2 and sum(written) < 300
    assert len(lines_in(tmp_path)) == 202 and len(rows_in(tmp_path)) == 201


def test_a_new_value_becomes_a_new_column(tmp_path):
    files = train(tmp_path, range(2))
    files.add_epoch(2, values(2.0, my_value=7))
    files.add_epoch(3, values(3.0))
    assert [row["my_value"] for row in rows_in(tmp_path)] == ["", "", "7", ""]


def test_what_a_full_disk_refuses_is_added_later(tmp_path, monkeypatch, caplog):
    files = train(tmp_path, range(1))
    before = (tmp_path / "metrics.jsonl").read_bytes()

    class HalfWritten:
        """A file on a disk with room for ten more bytes."""

        def __init__(self, path: Path, *_: Any, **__: Any) -> None:
            self.file = os.fdopen(os.open(path, os.O_APPEND | os.O_WRONLY), "ab", buffering=0)
            self.truncate = self.file.truncate

        def __enter__(self) -> HalfWritten:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def tell(self) -> int:
            return self.file.seek(0, os.SEEK_END)

        def write(self, data: bytes) -> int:
            return self.file.write(data[:10])

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(metric_files, "open", HalfWritten, raising=False)
        files.add_epoch(1, values(1.0))
        files.add_epoch(2, values(2.0))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert "The metrics could not be written (there is no space left" in caplog.text
    files.add_epoch(3, values(3.0))
    assert what_is_in(tmp_path) == ["first", 0, 1, 2, 3]
    assert [row["epoch"] for row in rows_in(tmp_path)] == ["0", "1", "2", "3"]


def test_a_folder_that_cannot_be_made_at_first_does_no_harm(tmp_path, caplog):
    (tmp_path / "fold_0").write_text("in the way")
    files = files_of(tmp_path / "fold_0")
    files.add_epoch(0, values(0.0))
    assert "the training goes on" in caplog.text
    (tmp_path / "fold_0").unlink()
    files.add_epoch(1, values(1.0))
    assert what_is_in(tmp_path / "fold_0") == ["first", 0, 1]

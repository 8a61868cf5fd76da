"""A damaged or hostile `metrics.jsonl` (beyond the list, 3): file and line are named wherever it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.comparison.entry_point import compare_entry
from nnunetv2.errors import DataError
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.logging.metric_lines import read_metrics
from tests.comparison.model_folders import DATASET, Model, write_dataset
from tests.faults.conftest import one_line

Run = Callable[..., tuple[int, str]]

GOOD = [{"type": "run", "first_epoch": 0}, {"type": "epoch", "epoch": 0, "seconds": 1.5}]

FAULTS = {
    "epoch as text": {"type": "epoch", "epoch": "1"},
    "epoch as list": {"type": "epoch", "epoch": [1]},
    "epoch as number with fraction": {"type": "epoch", "epoch": 1.5},
    "epoch as bool": {"type": "epoch", "epoch": True},
    "epoch null": {"type": "epoch", "epoch": None},
    "epoch missing": {"type": "epoch", "seconds": 1.0},
    "epoch negative": {"type": "epoch", "epoch": -1},
    "epoch enormous": {"type": "epoch", "epoch": 10**30},
    "seconds as text": {"type": "epoch", "epoch": 1, "seconds": "2"},
    "world size as text": {"type": "epoch", "epoch": 1, "world_size": "two"},
    "first epoch as text": {"type": "run", "first_epoch": "0"},
    "split as list": {"type": "run", "split": [1]},
    "split without hash": {"type": "run", "split": {"validation": {"num_cases": 2}}},
    "number of cases as text": {"type": "run", "split": {"training": {"num_cases": "2", "sha256": "ab"}}},
    "augmentation as text": {"type": "run", "augmentation": "none"},
    "patch size as number": {"type": "run", "patch_size": 64},
    "pretrained weights as list": {"type": "run", "pretrained_weights": ["a"]},
    "trained epochs as text": {"type": "validation", "epochs_trained": "2"},
    "seconds per case as object": {"type": "validation", "seconds_per_case": {}},
    "list": [1, 2],
    "number": 5,
    "no type": {"epoch": 1},
    "type as list": {"type": ["epoch"], "epoch": 1},
    "nested": {"type": "epoch", "epoch": 1, "dice": json.loads("[" * 100 + "]" * 100)},
    "nested without end": "[" * 200_000,
    "half a line": '{"type": "epoch", "epo',
    "other text": "epoch 1: done",
    "binary": "\x00\x01\x02",
    "two objects": '{"type": "epoch", "epoch": 1} {"type": "epoch", "epoch": 2}',
    "enormous line": '{"type": "epoch", "epoch": 1, "note": "' + "x" * 2**22 + '"}',
}


def lines_with(fault: str) -> str:
    wrong = FAULTS[fault]
    text = wrong if isinstance(wrong, str) else json.dumps(wrong)
    first, last = map(json.dumps, GOOD)
    return f"{first}\n{text}\n{last}\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_file_and_line_are_named(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines_with(fault))
    with pytest.raises(DataError) as raised:
        read_metrics(path)
    message = str(raised.value)
    assert message.startswith(f"{path}, line 2 ")
    assert message.endswith("correct or remove the line, or remove the file")
    assert len(message) < len(str(path)) + 300


def test_what_a_killed_process_leaves_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(line) + "\n" for line in GOOD)
    for size in range(1, len(json.dumps(GOOD[1]))):
        path.write_text(whole + json.dumps(GOOD[1])[:size])
        assert read_metrics(path) == GOOD
    assert "line 3 is cut off" in caplog.text
    path.write_text(whole + json.dumps(GOOD[1]))
    assert read_metrics(path) == [*GOOD, GOOD[1]]  # only the line break is missing


def test_unknown_kinds_and_entries_are_kept(tmp_path: Path) -> None:
    lines = [*GOOD, {"type": "note", "epoch": "x"}, {"type": "epoch", "epoch": 1, "mine": {"a": [1, "b", None]}}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_metrics(path) == lines


@pytest.mark.parametrize(
    "fault", ["epoch as text", "epoch missing", "nested without end", "split as list", "half a line"]
)
def test_a_comparison_names_file_and_line(
    fault: str, nnunet_folders: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    write_dataset(nnunet_folders)
    models = [Model().write(tmp_path / name / "nnUNetTrainer__nnUNetPlans__2d") for name in ("one", "two")]
    path = models[1] / "fold_1" / "metrics.jsonl"
    path.write_text(lines_with(fault))
    words = [f"{name}={model}" for name, model in zip(("one", "two"), models, strict=True)]
    code, stderr = run(compare_entry, "-d", DATASET, "-m", *words, "-o", tmp_path / "out")
    assert code == 3
    one_line(stderr, f"{path}, line 2 ")
    assert not (tmp_path / "out").exists()


def test_a_resumed_training_names_file_and_line_and_goes_on(
    tiny_images: Path,
    nnunet_folders: dict[str, Path],
    short_training: Callable[..., None],
    run: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:
    short_training(epochs=1)
    assert run(run_training_entry, "777", "2d", "0", "-device", "cpu")[0] == 0
    fold = next(nnunet_folders["nnUNet_results"].glob("*/*/fold_0"))
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_latest.pth")
    path = fold / "metrics.jsonl"
    damaged = lines_with("epoch as text")
    path.write_text(damaged)
    short_training(epochs=2)
    code, stderr = run(run_training_entry, "777", "2d", "0", "-device", "cpu", "--c")
    assert code == 0, stderr
    assert f'{path}, line 2 has the epoch "1"; it must be a whole number of at least 0' in caplog.text
    assert [line.get("epoch") for line in read_metrics(path) if line["type"] == "epoch"] == [1]
    assert (fold / "metrics.jsonl.damaged").read_text() == damaged

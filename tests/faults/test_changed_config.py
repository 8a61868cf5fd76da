"""Row 36: a training is not resumed with other plans, cases, labels or settings without being told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.errors import UsageError
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.run.run_training_vit import run_training_entry as run_vit_entry
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint
from tests.faults.conftest import one_line
from tests.faults.interrupted_training import WORDS, fold_of, interrupt

Run = Callable[..., tuple[int, str]]
HEAD = ("model.head=linear", "model.backbone_size=tiny", "model.pretrained=false", "training.num_epochs=2")
LENGTH = ("training.num_iterations_per_epoch=1", "training.num_val_iterations_per_epoch=1", "training.lr=0.01")


@pytest.fixture
def begun(tiny_images: Path, nnunet_folders: dict[str, Path], short_training: Callable, monkeypatch) -> Path:
    """Folder of a fold of which two of three epochs are trained."""
    interrupt(monkeypatch, epoch=2)
    return fold_of(nnunet_folders["nnUNet_results"])


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = read_json(path)
    change(content)
    write_json(content, path)


def set_in_2d(name: str, value: Any) -> Callable[[dict], None]:
    return lambda plans: plans["configurations"]["2d"].update({name: value})


def move_a_case(splits: list[dict]) -> None:
    splits[0]["val"].append(splits[0]["train"].pop())


def swap_labels(dataset: dict) -> None:
    first, second = (name for name in dataset["labels"] if name != "background")
    labels = dataset["labels"]
    labels[first], labels[second] = labels[second], labels[first]


CHANGES = {
    "batch size": ("nnUNetPlans.json", set_in_2d("batch_size", 3), "plans.batch_size: 2 -> 3"),
    "patch size": ("nnUNetPlans.json", set_in_2d("patch_size", [32, 64]), "plans.patch_size: [32, 32] -> [32, 64]"),
    "splits": ("splits_final.json", move_a_case, "split.train: "),
    "labels": ("dataset.json", swap_labels, "dataset.labels."),
}


def test_changes_of_plans_cases_and_labels_are_refused(tiny_images: Path, begun: Path, run: Run) -> None:
    latest = (begun / checkpoint.LATEST).read_bytes()
    for name, (file, change, message) in CHANGES.items():
        before = (tiny_images / file).read_bytes()
        edit(tiny_images / file, change)
        code, errors = run(run_training_entry, *WORDS, "--c")
        assert code == UsageError.exit_code, name
        one_line(errors, checkpoint.LATEST, message, " -> ", "--allow_config_change")
        assert (begun / checkpoint.LATEST).read_bytes() == latest
        (tiny_images / file).write_bytes(before)
    code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == 0, errors


def test_a_change_is_gone_on_with_when_it_is_wanted(
    tiny_images: Path, begun: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    edit(tiny_images / "splits_final.json", move_a_case)
    code, errors = run(run_training_entry, *WORDS, "--c", "--allow_config_change")
    assert code == 0, errors
    assert any("goes on with changes: split.train: " in message for message in caplog.messages)
    assert run(run_training_entry, *WORDS, "--c")[0] == 0  # the final checkpoint has the new record
    code, errors = run(run_training_entry, *WORDS, "--allow_config_change")
    assert code == UsageError.exit_code
    one_line(errors, "--allow_config_change is for trainings that --c continues")


def test_a_checkpoint_without_the_record_is_not_questioned(tiny_images: Path, begun: Path, run: Run) -> None:
    """Upstream's, and those of earlier versions."""
    for name in (checkpoint.LATEST, checkpoint.PREVIOUS, checkpoint.BEST):
        content = load_checkpoint(begun / name)
        save_checkpoint({key: content[key] for key in content if key != "trained_with"}, begun / name)
    edit(tiny_images / "splits_final.json", move_a_case)
    code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == 0, errors


def test_changed_settings_are_refused_and_harmless_ones_are_not(
    tiny_images: Path, nnunet_folders: dict[str, Path], run: Run
) -> None:
    code, errors = run(run_vit_entry, *WORDS, *HEAD, *LENGTH)
    assert code == 0, errors
    code, errors = run(run_vit_entry, *WORDS, "--c", "training.lr=0.02", "training.num_epochs=3")
    assert code == UsageError.exit_code
    one_line(errors, "settings.training.lr: 0.01 -> 0.02", "--allow_config_change")
    harmless = ("training.save_every=1", "training.num_val_iterations_per_epoch=2", "model.pretrained=true")
    code, errors = run(run_vit_entry, *WORDS, "--c", "training.num_epochs=3", *harmless)
    assert code == 0, errors
    code, errors = run(
        run_vit_entry, *WORDS, "--c", "training.lr=0.02", "training.num_epochs=4", "--allow_config_change"
    )
    assert code == 0, errors
    fold = next(nnunet_folders["nnUNet_results"].glob("*/nnUNetTrainer_vit__*/fold_0"))
    content = load_checkpoint(fold / checkpoint.FINAL)
    assert content["current_epoch"] == 4
    assert content["trained_with"]["settings.training.lr"] == 0.02


def test_the_record_has_no_names_of_cases_or_folders(tiny_images: Path, begun: Path, tmp_path: Path) -> None:
    text = json.dumps(load_checkpoint(begun / checkpoint.LATEST)["trained_with"])
    cases = read_json(tiny_images / "splits_final.json")[0]
    assert not [name for name in (*cases["train"], *cases["val"], str(tmp_path)) if name in text]

"""Rows 3 and 4: a damaged checkpoint is never used, and a training goes on from the next best one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.faults.conftest import one_line
from tests.faults.injection import flip_bit, times, truncate
from tests.faults.interrupted_training import WORDS, fold_of, interrupt
from tests.training.tiny_dataset import write_tiny_dataset

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a seeded training of four epochs, of which three are done."""
    root = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("preprocessed", "results"):
            (root / name).mkdir()
            patched.setenv(f"nnUNet_{name}", str(root / name))
        patched.setenv("nnUNet_n_proc_DA", "0")
        write_tiny_dataset(root / "preprocessed")
        shorten(patched)
        interrupt(patched, "--seed", "7", epoch=3)
    return root


def shorten(patched: pytest.MonkeyPatch) -> None:
    lengths = {"num_epochs": 4, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1, "save_every": 1}
    for name, value in lengths.items():
        patched.setattr(nnUNetTrainer, name, value)


@pytest.fixture
def fold(begun: Path, nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fold of that training, with its latest checkpoint, the previous one and the best one."""
    shorten(monkeypatch)
    for name in ("preprocessed", "results"):
        shutil.copytree(begun / name, nnunet_folders[f"nnUNet_{name}"], dirs_exist_ok=True)
    fold = fold_of(nnunet_folders["nnUNet_results"])
    epochs = {name: load_checkpoint(fold / name)["current_epoch"] for name in (checkpoint.LATEST, checkpoint.PREVIOUS)}
    assert epochs == {checkpoint.LATEST: 3, checkpoint.PREVIOUS: 2}
    return fold


def weights_of(fold: Path) -> torch.Tensor:
    content = load_checkpoint(fold / checkpoint.FINAL)["network_weights"]
    return torch.cat([value.flatten().double() for value in content.values()])


def test_a_damaged_latest_checkpoint_is_replaced_by_the_previous_one(
    fold: Path, run: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Row 3, and 35: whichever checkpoint the training goes on from, it ends with the same weights."""
    generator = np.random.default_rng(0)
    damages = {
        "0 %": lambda path: truncate(path, 0),
        "50 %": lambda path: truncate(path, 0.5),
        "one byte": lambda path: flip_bit(path, generator),
        "1 %": lambda path: truncate(path, 0.01),
        "99 %": lambda path: truncate(path, 0.99),
    }
    (fold / checkpoint.BEST).unlink()
    shutil.copytree(fold, tmp_path / "begun")
    assert run(run_training_entry, *WORDS, "--c")[0] == 0
    expected = weights_of(fold)
    for name in list(damages)[: times(3, 5)]:
        shutil.rmtree(fold)
        shutil.copytree(tmp_path / "begun", fold)
        damages[name](fold / checkpoint.LATEST)
        caplog.clear()
        code, errors = run(run_training_entry, *WORDS, "--c")
        assert code == 0, errors
        warning = next(message for message in caplog.messages if "is damaged" in message)
        assert f"{fold / checkpoint.LATEST} is damaged" in warning
        assert "continues from epoch 2 of checkpoint_latest.prev.pth" in warning
        assert torch.equal(weights_of(fold), expected), name


def test_the_best_checkpoint_is_next_and_none_is_an_error(
    fold: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 3."""
    for name in (checkpoint.LATEST, checkpoint.PREVIOUS):
        truncate(fold / name, 0.5)
    before = (fold / checkpoint.BEST).read_bytes()
    truncate(fold / checkpoint.BEST, 0.5)
    code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == DataError.exit_code
    one_line(errors, "No checkpoint in", checkpoint.LATEST, checkpoint.PREVIOUS, checkpoint.BEST, "leave out --c")
    assert not (fold / checkpoint.FINAL).exists()
    (fold / checkpoint.BEST).write_bytes(before)
    assert run(run_training_entry, *WORDS, "--c")[0] == 0
    assert sum("of checkpoint_best.pth" in message for message in caplog.messages) == 2
    assert (fold / checkpoint.FINAL).is_file()


def test_flipped_bits_are_found_or_change_nothing(fold: Path) -> None:
    """Row 4, through the Python interface: anywhere, and in what is no tensor: headers, padding, directory, comment."""
    path, generator = fold / checkpoint.LATEST, np.random.default_rng(0)
    whole, expected = path.read_bytes(), load_checkpoint(path)["network_weights"]
    found = 0
    size = len(whole)
    parts = [(0, size)] * times(20, 200) + [(0, 400)] * times(5, 50) + [(size - 300, size)] * times(5, 50)
    for start, end in parts:
        path.write_bytes(whole)
        position = flip_bit(path, generator, start=start, end=end)
        try:
            weights = load_checkpoint(path)["network_weights"]
        except DataError as err:
            found += 1
            assert str(path) in str(err)
        else:
            assert all(torch.equal(value, expected[name]) for name, value in weights.items()), position
    assert found >= 0.9 * len(parts)


def test_all_who_open_a_checkpoint_check_it(fold: Path, run: Run) -> None:
    """Row 4: validation, prediction, export and pretrained weights."""
    from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry

    path = fold / checkpoint.FINAL
    (fold / checkpoint.LATEST).rename(path)
    weights = load_checkpoint(path)["network_weights"]
    tensor = max(weights.values(), key=torch.numel).numpy().tobytes()
    position = path.read_bytes().index(tensor) + len(tensor) // 2
    flip_bit(path, np.random.default_rng(2), start=position, end=position + 1)
    export = ("-d", "777", "-o", fold / "model.zip", "-c", "2d", "-f", "0", "--not_strict")
    for entry, words in ((run_training_entry, (*WORDS, "--val")), (export_pretrained_model_entry, export)):
        code, errors = run(entry, *words)
        assert code == DataError.exit_code, errors
        one_line(errors, f"{path} is damaged")
    with pytest.raises(DataError, match="is damaged"):
        nnUNetPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(fold.parent), (0,))
    with pytest.raises(DataError, match="is damaged"):
        load_pretrained_weights(torch.nn.Linear(1, 1), str(path))

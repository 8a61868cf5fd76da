"""Which checkpoint of a fold is used, and weights on their way back into a network."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import DataError, UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint
from tests.training.tiny_dataset import Schedule, make_trainer, write_tiny_dataset

FINAL, LATEST, PREVIOUS, BEST = checkpoint.FINAL, checkpoint.LATEST, checkpoint.PREVIOUS, checkpoint.BEST


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ({LATEST: 50, BEST: 71}, BEST),
        ({LATEST: 50, BEST: 50}, LATEST),
        ({LATEST: 50, BEST: 30}, LATEST),
        ({PREVIOUS: 40, BEST: 30}, PREVIOUS),
        ({PREVIOUS: 40, BEST: 45}, BEST),
        ({LATEST: 50, BEST: 71, FINAL: 80}, FINAL),
        ({BEST: 80, FINAL: 80}, FINAL),
        ({FINAL: 80, LATEST: 85, PREVIOUS: 82}, LATEST),  # a finished training that is being prolonged
        ({BEST: 3}, BEST),
        ({}, None),
    ],
)
def test_checkpoint_to_continue_is_the_furthest(tmp_path: Path, epochs: dict[str, int], expected: str | None) -> None:
    for name, epoch in epochs.items():
        save_checkpoint({"current_epoch": epoch}, tmp_path / name)
    found = checkpoint.checkpoint_to_continue(tmp_path)
    assert (found and found.name) == expected


def test_damaged_checkpoints_are_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, epoch in {LATEST: 6, PREVIOUS: 5, BEST: 4}.items():
        save_checkpoint({"current_epoch": epoch}, tmp_path / name)
    expected = [(LATEST, PREVIOUS, 5), (PREVIOUS, BEST, 4)]
    for damaged, used, epoch in expected:
        (tmp_path / damaged).write_bytes(b"half a file")
        caplog.clear()
        assert checkpoint.checkpoint_to_continue(tmp_path) == tmp_path / used
        assert f"{damaged} is damaged" in caplog.messages[-1]
        assert caplog.messages[-1].endswith(f"The training continues from epoch {epoch} of {used}")
    (tmp_path / BEST).write_bytes(b"")
    with pytest.raises(DataError, match="No checkpoint in .* can be used: .*checkpoint_latest.*checkpoint_best"):
        checkpoint.checkpoint_to_continue(tmp_path)


def test_the_latest_checkpoint_alone_has_a_previous_one(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        for name in (LATEST, BEST):
            checkpoint.write({"current_epoch": epoch}, tmp_path / name)
    epochs = {path.name: load_checkpoint(path)["current_epoch"] for path in tmp_path.iterdir()}
    assert epochs == {LATEST: 3, PREVIOUS: 2, BEST: 3}
    checkpoint.remove_superseded(tmp_path)
    assert os.listdir(tmp_path) == [BEST]


def test_missing_checkpoint_is_reported_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Validation needs checkpoint_final\.pth and .* has no checkpoint"):
        checkpoint.require_checkpoint(tmp_path, checkpoint.FINAL, "Validation")
    (tmp_path / checkpoint.BEST).touch()
    with pytest.raises(UsageError, match=r"has only checkpoint_best\.pth"):
        checkpoint.require_checkpoint(tmp_path, checkpoint.FINAL, "Validation")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_weights_load_whatever_wrapper_they_were_saved_from(prefix: str) -> None:
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    weights = {prefix + name: value for name, value in source.state_dict().items()}
    checkpoint.load_network_weights(target, weights, "file")
    torch.testing.assert_close(target.weight, source.weight)


class _Compiled(torch.nn.Module):
    """Wraps a network as torch.compile does."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = network


def test_weights_load_into_a_compiled_network() -> None:
    source, target = torch.nn.Linear(3, 2), _Compiled(torch.nn.Linear(3, 2))
    checkpoint.load_network_weights(target, source.state_dict(), "file")
    torch.testing.assert_close(unwrap(target).weight, source.weight)


def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded() -> None:
    network = torch.nn.Linear(3, 2)
    before = network.weight.detach().clone()
    with pytest.raises(
        UsageError, match=r"in file\.pth do not fit.*bias is missing; extra is not part.*weight has shape \(2, 4\)"
    ):
        checkpoint.load_network_weights(network, {"weight": torch.ones(2, 4), "extra": torch.ones(1)}, "file.pth")
    torch.testing.assert_close(network.weight, before)


@pytest.mark.parametrize(
    ("ema", "best", "expected"),
    [(0.5, None, True), (0.5, 0.4, True), (0.4, 0.4, False), (math.nan, None, False), (0.1, math.nan, True)],
)
def test_is_better(ema: float, best: float | None, expected: bool) -> None:
    assert checkpoint.is_better(ema, best) is expected


def test_truncated_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.LATEST
    torch.save({"weights": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"checkpoint_latest\.pth is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("restored", "epoch", "expected"),
    [
        (None, 4, "final"),
        (("checkpoint_final.pth", 4), 4, "final"),
        (("checkpoint_best.pth", 4), 4, "best"),  # the last epoch was the best
        (("checkpoint_best.pth", 2), 2, "best"),
        (("checkpoint_best.pth", 2), 4, "final"),  # was continued from there
        (("the given checkpoint", 3), 3, None),
        (None, 3, None),
    ],
)
def test_the_validated_checkpoint_is_the_one_that_was_loaded_last(restored, epoch, expected):
    assert checkpoint.validated_checkpoint(restored or (None, None), epoch, 4) == expected


def _validated(trainer: nnUNetTrainer) -> str | None:
    return checkpoint.validated_checkpoint(trainer.restored_checkpoint, trainer.current_epoch, trainer.num_epochs)


@pytest.mark.slow
def test_the_best_checkpoint_is_told_from_the_final_one(nnunet_folders):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = make_trainer(nnUNetTrainer, Schedule(epochs=1))
    trainer.run_training()
    assert _validated(trainer) == "final"
    for name in ("best", "final"):
        loaded = make_trainer(nnUNetTrainer, Schedule(epochs=1))
        loaded.load_checkpoint(str(Path(trainer.output_folder) / f"checkpoint_{name}.pth"))
        assert _validated(loaded) == name

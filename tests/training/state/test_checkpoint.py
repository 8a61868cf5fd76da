"""Which checkpoint of a fold is used, and weights on their way back into a network."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import DataError, UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint
from tests.training.tiny_dataset import Schedule, make_trainer, write_tiny_dataset


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ([checkpoint.FINAL, checkpoint.LATEST, checkpoint.BEST], checkpoint.FINAL),
        ([checkpoint.LATEST, checkpoint.BEST], checkpoint.LATEST),
        ([checkpoint.BEST], checkpoint.BEST),
        ([], None),
    ],
)
def test_checkpoint_to_continue_is_the_furthest(tmp_path: Path, present: list[str], expected: str | None) -> None:
    for name in present:
        (tmp_path / name).touch()
    found = checkpoint.checkpoint_to_continue(tmp_path)
    assert (found and found.name) == expected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ({checkpoint.LATEST: 50, checkpoint.BEST: 71}, checkpoint.BEST),
        ({checkpoint.LATEST: 50, checkpoint.BEST: 50}, checkpoint.LATEST),
        ({checkpoint.LATEST: 50, checkpoint.BEST: 30}, checkpoint.LATEST),  # the time is that of a copy
        ({checkpoint.BEST: 30, checkpoint.LATEST: 50}, checkpoint.LATEST),
        ({checkpoint.LATEST: 50, checkpoint.BEST: 71, checkpoint.FINAL: 80}, checkpoint.FINAL),
    ],
)
def test_the_best_checkpoint_is_continued_where_it_is_further_than_the_latest(
    tmp_path: Path, epochs: dict[str, int], expected: str
) -> None:
    for time_of_writing, (name, epoch) in enumerate(epochs.items()):
        save_checkpoint({"current_epoch": epoch}, tmp_path / name)
        os.utime(tmp_path / name, (time_of_writing, time_of_writing))
    assert checkpoint.checkpoint_to_continue(tmp_path) == tmp_path / expected


def test_a_younger_best_checkpoint_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    save_checkpoint({"current_epoch": 5}, tmp_path / checkpoint.LATEST)
    (tmp_path / checkpoint.BEST).write_bytes(b"half a file")
    assert checkpoint.checkpoint_to_continue(tmp_path) == tmp_path / checkpoint.LATEST


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


def _save_until_killed(path: Path, started: Event) -> None:
    step = 0
    while True:
        step += 1
        save_checkpoint({"step": step, "weights": torch.full((500, 1000), float(step))}, path)
        started.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a forked child is what makes this test fast")
def test_kill_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / checkpoint.LATEST
    context = multiprocessing.get_context("fork")
    for delay in (0.0, 0.02, 0.05, 0.09):
        started = context.Event()
        child = context.Process(target=_save_until_killed, args=(path, started))
        child.start()
        assert started.wait(60)
        time.sleep(delay)
        child.kill()
        child.join()
        content = load_checkpoint(path)
        assert bool((content["weights"] == content["step"]).all())


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

"""What a seed does to a training, and what goes without one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from dinov3.utils.processes import process_group
from nnunetv2.errors import UsageError
from nnunetv2.run.training_run import TrainingRun, build_parser
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.setup import seeding
from nnunetv2.training.setup.seed_range import LARGEST_SEED
from tests.training.tiny_dataset import Schedule, make_trainer, write_tiny_dataset


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def _draw() -> tuple[float, float, float]:
    return random.random(), np.random.uniform(), torch.rand(()).item()


def _drawn_after(function: Any, *arguments: Any) -> tuple[float, float, float]:
    function(*arguments)
    return _draw()


def test_a_start_and_every_epoch_of_every_process_draw_their_own_numbers():
    calls = [(seeding.start, 3), (seeding.start, 4)]
    calls += [(seeding.start_epoch, seed, epoch, rank) for seed in (3, 4) for epoch in (0, 1) for rank in (0, 1)]
    drawn = [_drawn_after(*call) for call in calls]
    assert len(np.unique(drawn)) == np.size(drawn)
    assert drawn == [_drawn_after(*call) for call in calls]


def test_without_a_seed_nothing_is_set(seeded):
    expected = [_draw() for _ in range(2)]
    random.seed(seeded), np.random.seed(seeded), torch.manual_seed(seeded)
    assert [_drawn_after(seeding.start, None), _drawn_after(seeding.start_epoch, None, 2, 0)] == expected
    with seeding.deterministic_kernels(None):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 1.5, "7", True])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UsageError, match=r"The seed is .*; accepted are whole numbers from 0 to 4294967295, or none"):
        seeding.start(seed)
    with pytest.raises(UsageError, match="The seed is"):
        TrainingRun("1", "2d", 0, seed=seed)
    assert TrainingRun("1", "2d", 0, seed=LARGEST_SEED).seed == LARGEST_SEED


@pytest.mark.parametrize("text", ["abc", "-1", "1.5"])
def test_a_command_says_which_seeds_it_takes(text, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["1", "2d", "0", "--seed", text])
    expected = f"argument --seed: '{text}' is no seed; accepted are whole numbers from 0 to 4294967295"
    assert capsys.readouterr().err.splitlines()[-1].endswith(expected)
    assert build_parser().parse_args(["1", "2d", "0", "--seed", "7"]).seed == 7


@pytest.mark.slow  # the first call imports torch's compiler
@pytest.mark.parametrize("is_strict", [False, True])
def test_kernels_are_deterministic_within_the_block_alone(is_strict, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(is_strict)
    try:
        with pytest.raises(KeyError), seeding.deterministic_kernels(0):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled() is not is_strict
            assert not torch.backends.cudnn.benchmark
            raise KeyError
        assert torch.are_deterministic_algorithms_enabled() is is_strict
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("own", "stored", "is_finished", "expected"),
    [(None, 7, False, 7), (7, 7, False, 7), (None, None, False, None), (8, 7, True, 7), (8, None, True, None)],
)
def test_a_training_goes_on_with_its_seed(own, stored, is_finished, expected):
    assert seeding.resumed_seed(own, stored, is_finished, "latest.pth") == expected


@pytest.mark.parametrize(("stored", "words"), [(7, "with seed 7"), (0, "with seed 0"), (None, "without a seed")])
def test_a_training_does_not_go_on_with_another_seed(stored, words):
    with pytest.raises(UsageError, match=f"in latest.pth was started {words} and cannot go on with seed 8; leave out"):
        seeding.resumed_seed(8, stored, False, "latest.pth")


def test_weights_at_the_start_follow_from_the_seed(dataset):
    def weights(seed: int | None) -> torch.Tensor:
        trainer = make_trainer(nnUNetTrainer)
        trainer.seed = seed
        trainer.initialize()
        return torch.cat([parameter.flatten() for parameter in trainer.network.parameters()])

    torch.manual_seed(1)
    first, unseeded = weights(5), weights(None)
    torch.manual_seed(2)
    assert torch.equal(weights(5), first)
    assert not torch.equal(weights(6), first)
    assert not torch.equal(unseeded, first)


class _Seeded(nnUNetTrainer):
    seed = 11


class _SeededDrawing(_Seeded):
    probabilistic_oversampling = True
    oversample_foreground_percent = 0.5


@pytest.mark.parametrize(("trainer_class", "batch_size"), [(_Seeded, 5), (_SeededDrawing, 2)])
def test_two_processes_share_the_batches_of_one(dataset, monkeypatch, trainer_class, batch_size):
    def batches_of(rank: int, sizes: list[int]) -> list[dict]:
        """As process `rank` of several, which have batches of these sizes."""
        monkeypatch.setattr(process_group, "rank_and_world_size", lambda: (rank, len(sizes)))
        monkeypatch.setattr(process_group, "gather", lambda value: sizes)
        trainer = make_trainer(trainer_class)
        trainer.configuration_manager.configuration["batch_size"] = batch_size
        trainer.initialize()
        assert trainer.batch_size == sizes[rank]
        train, val = trainer.get_dataloaders()
        return [next(train), next(train), next(val)]

    sizes = [batch_size - batch_size // 2, batch_size // 2]
    one, parts = batches_of(0, [batch_size]), [batches_of(rank, sizes) for rank in (0, 1)]
    for whole, *shares in zip(one, *parts, strict=True):
        assert torch.equal(torch.cat([share["data"] for share in shares]), whole["data"])
        for resolution, target in enumerate(whole["target"]):
            assert torch.equal(torch.cat([share["target"][resolution] for share in shares]), target)


def test_batches_go_on_where_the_epoch_begins(dataset):
    def batches_from(epoch: int, number: int) -> list[torch.Tensor]:
        trainer = make_trainer(_Seeded, Schedule(iterations=3, validation_iterations=2))
        trainer.current_epoch = epoch
        trainer.initialize()
        return [torch.stack([next(loader)["data"] for _ in range(number)]) for loader in trainer.get_dataloaders()]

    (train, val), (later_train, later_val) = batches_from(0, 5), batches_from(1, 2)
    assert torch.equal(train[3:], later_train)
    assert torch.equal(val[2:4], later_val)


class _UpstreamsLoaders(_Seeded):
    """Makes its loaders as trainers for upstream do."""

    num_workers = 0

    def get_dataloaders(self) -> tuple[Any, Any]:
        size, (train, val) = self.configuration_manager.patch_size, self.get_tr_and_val_datasets()
        transforms = self.get_validation_transforms(self._get_deep_supervision_scales())
        loaders = [
            nnUNetDataLoader(
                cases, self.batch_size, size, size, self.label_manager, self.oversample_foreground_percent,
                sampling_probabilities=None, pad_sides=None, transforms=transforms,
            )
            for cases in (train, val)
        ]  # fmt: skip
        if self.num_workers == 0:
            return tuple(SingleThreadedAugmenter(loader, None) for loader in loaders)
        return tuple(
            NonDetMultiThreadedAugmenter(loader, None, self.num_workers, wait_time=0.002) for loader in loaders
        )


@pytest.mark.slow
def test_trainers_with_loaders_of_their_own_are_seeded_within_this_process(dataset, capsys):
    def train(num_workers: int) -> dict[str, torch.Tensor]:
        trainer = make_trainer(_UpstreamsLoaders, Schedule(epochs=2))
        trainer.num_workers = num_workers
        trainer.run_training()
        return trainer.network.state_dict()

    first, second = train(0), train(0)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert "WARNING" not in capsys.readouterr().out
    train(1)
    shown = capsys.readouterr().out
    assert "WARNING: _UpstreamsLoaders makes its batches in background processes of its own, which the seed" in shown

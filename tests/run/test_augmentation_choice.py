"""-augmentation_device: what it refuses, and that both kinds of trainers get the batches that they would have got."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.run import run_training
from nnunetv2.run.augmentation_choice import augment_on
from nnunetv2.run.training_run import TrainingRun
from nnunetv2.training.dataloading import batches
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.variants.benchmarking import nnUNetTrainerBenchmark_5epochs_noDataLoading as noise
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerSkeletonRecall import nnUNetTrainerSkeletonRecall
from tests.training.tiny_dataset import DATASET_JSON, tiny_plans, write_tiny_dataset

CPU = torch.device("cpu")
TRAINERS: dict[str, tuple[type[nnUNetTrainer], dict[str, Any]]] = {
    "U-Net": (nnUNetTrainer, {}),
    "Skeleton Recall": (nnUNetTrainerSkeletonRecall, {}),
    "dense head": (nnUNetTrainer_vit, {"overrides": ["model.head=segformer"]}),
    "query head": (nnUNetTrainer_vit, {"overrides": ["model.head=eomt"]}),
    "resize, crop, flip": (
        nnUNetTrainer_vit,
        {"overrides": ["model.head=segformer", "use_nnunet_augmentation=false"]},
    ),
}
LABELS_ON_HOST = {"Skeleton Recall", "query head"}


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def make(kind: type[nnUNetTrainer], **arguments: Any) -> nnUNetTrainer:
    trainer = kind(tiny_plans(), "2d", 0, DATASET_JSON, CPU, **arguments)
    trainer.seed = 4
    return trainer


def first_batches(trainer: nnUNetTrainer) -> Iterator[dict[str, Any]]:
    trainer._find_dataset_class()
    training, _ = trainer.get_dataloaders()
    return islice(training, 4)


@pytest.mark.parametrize("name", TRAINERS)
def test_the_trainer_gets_the_batches_that_it_would_have_got(name: str, dataset: Path) -> None:
    kind, arguments = TRAINERS[name]
    trainer = make(kind, **arguments)
    augment_on(trainer, "cuda")  # the device that trains, here the CPU
    for ours, theirs in zip(first_batches(trainer), first_batches(make(kind, **arguments)), strict=True):
        assert list(ours["keys"]) == list(theirs["keys"])
        torch.testing.assert_close(ours["data"], theirs["data"], rtol=0, atol=1e-4)
        (image, target), (_, expected) = batches.to_device(ours, CPU), batches.to_device(theirs, CPU)
        assert image is ours["data"]
        pairs = zip(target, expected, strict=True) if isinstance(target, list) else [(target, expected)]
        assert all(torch.equal(labels, known) for labels, known in pairs)


@pytest.mark.parametrize("name", TRAINERS)
def test_labels_stay_on_the_host_where_they_are_read_there(name: str, dataset: Path) -> None:
    kind, arguments = TRAINERS[name]
    trainer = make(kind, **arguments)
    augment_on(trainer, "cuda")
    trainer._find_dataset_class()
    training, validation = trainer.get_dataloaders()
    assert isinstance(training, AugmentedOnDevice)
    assert not isinstance(validation, AugmentedOnDevice)
    assert training.generator.recipe.keeps_labels == (name in LABELS_ON_HOST)


def test_by_default_the_workers_augment(dataset: Path) -> None:
    trainer = make(nnUNetTrainer)
    augment_on(trainer, TrainingRun("777", "2d", 0).augmentation_device)
    trainer._find_dataset_class()
    assert not any(isinstance(loader, AugmentedOnDevice) for loader in trainer.get_dataloaders())


class _OwnBatches(nnUNetTrainer):
    def get_dataloaders(self) -> Any:
        return super().get_dataloaders()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (nnUNetTrainerDA5, "cuda cannot apply .*SharpeningTransform of this trainer's augmentation; leave it out"),
        (_OwnBatches, "no effect on _OwnBatches, which makes its batches itself; leave it out"),
        (noise.nnUNetTrainerBenchmark_5epochs_noDataLoading, "no effect on nnUNetTrainerBenchmark_5epochs_noDataL"),
    ],
)
def test_trainers_that_it_does_not_fit_are_refused(
    kind: type[nnUNetTrainer], message: str, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # the benchmark asks for it
    trainer = make(kind)
    augment_on(trainer, "cpu")
    with pytest.raises(UsageError, match=message) as refusal:
        augment_on(trainer, "cuda")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_training_elsewhere_is_refused(device: str) -> None:
    message = f"-augmentation_device cuda augments on the GPU that trains, but -device is {device}; leave it out"
    with pytest.raises(UsageError, match=message):
        TrainingRun("1", "2d", 0, device_type=device, augmentation_device="cuda")


def test_other_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="-augmentation_device is 'mps'; it must be cpu or cuda"):
        TrainingRun("1", "2d", 0, augmentation_device="mps")


def test_the_command_refuses_in_one_line(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["777", "2d", "0", "-device", "cpu", "-augmentation_device", "cuda"]
    assert run_training.run_training_entry(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SystemExit):
        run_training.run_training_entry([*words[:-1], "tpu"])
    assert "invalid choice: 'tpu'" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device that is asked for")
def test_without_cuda_it_is_refused(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_training.run_training_entry(["777", "2d", "0", "-augmentation_device", "cuda"]) == 2
    assert "no cuda device" in capsys.readouterr().err

"""A whole training on the pretended device: from loading the data to the validation of whole cases."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from dinov3.layers.joint_casts import in_half
from dinov3.utils.network_wrappers import unwrap
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.primus.primus_trainers import nnUNet_Primus_S_Trainer
from tests.pretend_cuda.device import CUDA, pretended_cuda
from tests.training import tiny_dataset, tiny_volumes

SETTINGS = (
    "model.backbone_size=tiny",
    "model.pretrained=false",
    "model.tuning=lora",
    "lora.lora_dropout=0",
    "training.precision=bf16",
    "training.num_epochs=2",
    "training.num_iterations_per_epoch=2",
    "training.num_val_iterations_per_epoch=1",
)


@dataclass(frozen=True)
class Trained:
    """What a training left behind.

    Attributes:
        log: text of its log file.
        precisions: of the linear layers' frozen weights in the steps.
        trained_precisions: of the linear layers' trained weights, as the layers use them in the steps.
        changed: frozen tensors of the checkpoint that differ from those that the training began with.
        frozen: number of frozen tensors.
        summary: whether the scores of the whole cases were written.
        waits: of the host, in the whole training.
        waits_for_batches: of the host, while batches were augmented on the device.
        num_batches: that were.
    """

    log: str
    precisions: set[str]
    trained_precisions: set[str]
    changed: list[str]
    frozen: int
    summary: bool
    waits: list[str]
    waits_for_batches: list[str]
    num_batches: int


class _Short(nnUNetTrainer):
    num_epochs = 2
    num_iterations_per_epoch = 2
    num_val_iterations_per_epoch = 1


class _ShortPrimus(_Short, nnUNet_Primus_S_Trainer):
    pass


def train_images(root: Path, *, vit: bool, head: str = "segformer", augmentation_device: str = "cpu") -> Trained:
    """Trains and validates on the tiny images: the U-Net, or a vision transformer with LoRA in bf16."""
    shutil.rmtree(root / "nnUNet_preprocessed" / tiny_dataset.NAME)  # the steps of other tests need no data
    shutil.rmtree(root / "nnUNet_results" / tiny_dataset.NAME, ignore_errors=True)  # may be of another network
    tiny_dataset.write_tiny_dataset(root / "nnUNet_preprocessed")
    data = tiny_dataset.tiny_plans(), "2d", tiny_dataset.DATASET_JSON
    if not vit:
        return _train(_Short, *data, augmentation_device)
    return _train(nnUNetTrainer_vit, *data, augmentation_device, overrides=(*SETTINGS, f"model.head={head}"))


def train_volumes(root: Path, *, primus: bool, augmentation_device: str = "cpu") -> Trained:
    """Trains the U-Net or Primus on the tiny volumes, which have no files to validate against."""
    folder = root / "nnUNet_preprocessed" / tiny_volumes.NAME
    if not folder.exists():
        tiny_volumes.write_tiny_volumes(root / "nnUNet_preprocessed")
    dataset = json.loads((folder / "dataset.json").read_text())
    data = tiny_volumes.volume_plans(), "3d_fullres", dataset
    with tiny_volumes.tiny_primus():
        return _train(_ShortPrimus if primus else _Short, *data, augmentation_device)


def _train(
    trainer_class: type[nnUNetTrainer],
    plans: dict[str, Any],
    configuration: str,
    dataset: dict,
    augmentation_device: str,
    **arguments: Any,
) -> Trained:
    precisions: set[str] = set()
    trained_precisions: set[str] = set()
    waits_of_batches: list[list[str]] = []
    with pretended_cuda() as log:
        trainer = trainer_class(plans, configuration, 0, dataset, torch.device("cuda"), **arguments)
        trainer.device = CUDA
        trainer.augmentation_device = augmentation_device
        trainer.initialize()
        network = unwrap(trainer.network)
        before = _values(network.state_dict())
        frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
        trainer.plot_network_architecture = lambda: None

        def forward_loss(*args: Any) -> tuple[torch.Tensor, Any]:
            if network.training:
                linear = [layer.weight for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
                precisions.update(str(weight.dtype) for weight in linear if not weight.requires_grad)
                trained_precisions.update(str(in_half(weight).dtype) for weight in linear if weight.requires_grad)
            return type(trainer).forward_loss(trainer, *args)

        take = AugmentedOnDevice.__next__

        def batch(batches: AugmentedOnDevice) -> dict[str, Any]:
            num_before = len(log.waits)
            content = take(batches)
            waits_of_batches.append(log.waits[num_before:])
            return content

        with (
            mock.patch.object(trainer, "forward_loss", forward_loss),
            mock.patch.object(AugmentedOnDevice, "__next__", batch),
        ):
            trainer.run_training()
        if configuration == "2d":
            trainer.perform_actual_validation()
        folder = Path(trainer.output_folder)
        saved = _values(torch.load(folder / "checkpoint_final.pth", weights_only=False)["network_weights"])
    frozen &= saved.keys()  # a layer that a network knows by two names is saved under one
    changed = [name for name in sorted(frozen) if not np.array_equal(saved[name], before[name])]
    text = "".join(path.read_text() for path in folder.glob("training_log_*.txt"))
    has_summary = (folder / "validation" / "summary.json").is_file()
    waits = [wait for of_batch in waits_of_batches for wait in of_batch]
    return Trained(
        text, precisions, trained_precisions, changed, len(frozen), has_summary, log.waits, waits, len(waits_of_batches)
    )


def _values(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}

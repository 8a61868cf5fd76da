"""The models that `on_gpu.py` measures, as initialised trainers without a dataset, and batches for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2.training.dataloading import batches
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.utilities import extensions
from tests.model.heads.small import small_words
from tests.training.tiny_dataset import tiny_plans

DATASET = "Dataset999_OnGPU"
CHANNELS, CLASSES = 3, 3
_VOLUMES = 3  # dimensions


@dataclass(frozen=True)
class Model:
    """A model at a size.

    Attributes:
        name: unique, for tables.
        patch_size: two or three sizes; three make a 3-D U-Net.
        batch_size: patches of a step.
        settings: `key=value` words; None: a U-Net, which has none.
        precision: fp32, bf16 or fp16.
    """

    name: str
    patch_size: tuple[int, ...]
    batch_size: int
    settings: tuple[str, ...] | None = None
    precision: str = "bf16"

    def with_precision(self, precision: str) -> Model:
        return replace(self, precision=precision)

    def trainer(self, device: torch.device, *, is_compiled: bool = False, seed: int = 0) -> nnUNetTrainer:
        """Returns the initialised trainer, its network in training mode; the weights depend on the seed alone."""
        torch.manual_seed(seed)
        arguments = (self._plans(), "only", 0, _dataset_json(), device)
        if self.settings is None:
            trainer = type("nnUNetTrainer", (nnUNetTrainer,), {"precision": self.precision})(*arguments)
        else:
            trainer = nnUNetTrainer_vit(
                *arguments, overrides=[*self.settings, "model.pretrained=false", f"training.precision={self.precision}"]
            )
        trainer.disable_checkpointing = True
        with _compiling(is_compiled):
            trainer.initialize()
        trainer.network.train()
        return trainer

    def batch(self, trainer: nnUNetTrainer, seed: int = 0) -> dict[str, Any]:
        """Returns a batch on the CPU, pinned where there is a GPU, as a loader gives it: noise and random labels."""
        generator = torch.Generator().manual_seed(seed)
        scales = trainer._get_deep_supervision_scales()
        transform = trainer.get_validation_transforms(scales, **batches.label_arguments(trainer.label_manager, False))
        samples = []
        for _ in range(self.batch_size):
            coarse = torch.randint(0, CLASSES, [1, *(-(-size // 8) for size in self.patch_size)], generator=generator)
            labels = coarse
            for axis, size in enumerate(self.patch_size, 1):
                labels = labels.repeat_interleave(8, axis).narrow(axis, 0, size)
            image = labels + torch.randn([CHANNELS, *self.patch_size], generator=generator)
            samples.append(transform(image=image, segmentation=labels.to(torch.int16)))
        targets = [sample["segmentation"] for sample in samples]
        is_list = isinstance(targets[0], list)
        target = [torch.stack(each) for each in zip(*targets, strict=True)] if is_list else torch.stack(targets)
        batch = {"data": torch.stack([sample["image"] for sample in samples]), "target": target}
        if trainer.device.type == "cuda":
            batch["data"] = batch["data"].pin_memory()
            batch["target"] = [t.pin_memory() for t in target] if is_list else target.pin_memory()
        return batch

    def image(self, tiles: int) -> torch.Tensor:
        """Returns a random image (C, *size) of about `tiles` windows along each of the last two axes."""
        size = [side * (1 + (tiles - 1) / 2) for side in self.patch_size[-2:]]  # windows overlap by half
        depth = self.patch_size[:-2] or (1,)
        return torch.randn(CHANNELS, *depth, *map(round, size), generator=torch.Generator().manual_seed(1))

    def _plans(self) -> dict[str, Any]:
        plans, dimensions = tiny_plans(), len(self.patch_size)
        configuration = plans["configurations"]["2d"]
        configuration |= {
            "data_identifier": "only",
            "batch_size": self.batch_size,
            "patch_size": list(self.patch_size),
            "median_image_size_in_voxels": list(map(float, self.patch_size)),
            "spacing": [1.0] * dimensions,
            "normalization_schemes": ["NoNormalization"] * CHANNELS,
            "use_mask_for_norm": [False] * CHANNELS,
        }
        configuration["architecture"]["arch_kwargs"] |= _unet(dimensions, min(self.patch_size))
        return plans | {
            "dataset_name": DATASET,
            "original_median_spacing_after_transp": [1.0] * _VOLUMES,
            "original_median_shape_after_transp": [1, *self.patch_size][-_VOLUMES:],
            "image_reader_writer": "SimpleITKIO",
            "configurations": {"only": configuration},
            "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(CHANNELS)},
        }


def _unet(dimensions: int, smallest: int) -> dict[str, Any]:
    """Arguments of nnU-Net's architecture for such patches: halved until 4 to 7 voxels are left."""
    stages = int(np.log2(smallest / 4)) + 1
    most = 512 if dimensions < _VOLUMES else 320
    return {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**stage, most) for stage in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [[3] * dimensions] * stages,
        "strides": [[1] * dimensions] + [[2] * dimensions] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
    }


def _dataset_json() -> dict[str, Any]:
    return {
        "channel_names": {str(channel): f"channel {channel}" for channel in range(CHANNELS)},
        "labels": {"background": 0, **{f"class {label}": label for label in range(1, CLASSES)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }


@contextmanager
def _compiling(is_wanted: bool) -> Iterator[None]:
    before = os.environ.get("nnUNet_compile")
    os.environ["nnUNet_compile"] = "t" if is_wanted else "f"
    try:
        yield
    finally:
        if before is None:
            del os.environ["nnUNet_compile"]
        else:
            os.environ["nnUNet_compile"] = before


def make_folders(root: Path) -> None:
    """Sets nnU-Net's variables to folders below `root`, with as much of a dataset as a trainer looks for."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(root / variable)
    cases = root / "nnUNet_preprocessed" / DATASET / "only"
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.b2nd").touch()


def every_model() -> list[Model]:
    """All heads and U-Nets as miniatures, for what does not depend on size."""
    # The coarsest map of `fapm` has 1/32 of the image, and instance norm makes 0 of a single value.
    heads = [Model(head, (64, 64), 2, tuple(small_words(head))) for head in extensions.names("head")]
    return [*heads, Model("U-Net 2-D", (64, 64), 2), Model("U-Net 3-D", (16, 32, 32), 2)]


def measured_models(is_tiny: bool) -> list[Model]:
    """The models whose steps are timed: ViT-L with LoRA on patches of 512 x 512, and U-Nets as planned for one card."""
    if is_tiny:
        return [model for model in every_model() if model.name in ("m2f", "segformer", "U-Net 2-D", "U-Net 3-D")]
    large = ("model.backbone_size=large", "model.tuning=lora")
    heads = [Model(head, (512, 512), 2, (f"model.head={head}", *large)) for head in ("m2f", "eomt", "segformer", "dpt")]
    frozen = Model("m2f, frozen", (512, 512), 2, ("model.head=m2f", large[0], "model.tuning=frozen"))
    return [*heads, frozen, Model("U-Net 2-D", (512, 512), 12), Model("U-Net 3-D", (128, 128, 128), 2)]

"""Optimisation settings shared by all trainers of vision transformers.

An iteration is one optimiser step on one batch. A training lasts `num_epochs` times `num_iterations_per_epoch`; if
`num_epochs` is null, it lasts `total_iter`, rounded up to whole epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError

OPTIMIZERS = ("adamw", "sgd")
SCHEDULERS = ("WarmupOneCycleLR", "poly")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass
class ViTTrainingConfig:
    """Optimisation, length of the training, batches."""

    optimizer: str = "adamw"
    """Optimiser: adamw, or sgd with Nesterov momentum 0.99, which nnU-Net uses for its U-Nets (lr near 1e-2)."""
    loss: str | None = None
    """Name of the loss; null: default of the head, nnU-Net's for dense heads and Mask2Former's for query heads."""
    lr: float = 1e-4
    """Peak learning rate of the head."""
    weight_decay: float = 0.05
    """Weight decay of weight matrices and kernels; norms, biases, queries and other embeddings have none."""
    lora_lr_multiplier: float = 1.0
    """Learning rate of the LoRA adapters relative to lr; for tuning: lora."""
    backbone_lr_multiplier: float = 0.1
    """Learning rate of the backbone's own weights relative to lr; for tuning: full."""
    layer_decay: float = 1.0
    """Learning rate of each block relative to the next deeper block, in (0, 1]; 1: no decay; for tuning: full."""
    scheduler: str = "WarmupOneCycleLR"
    """After a linear warm-up: WarmupOneCycleLR (half a cosine to 0) or poly (power 0.9), stepped every iteration."""
    warmup_iters: int = 1500
    """Iterations of the warm-up; limited to a tenth of the training."""
    total_iter: int = 40000
    """Iterations of the training, used if num_epochs is null."""
    num_epochs: int | None = None
    """Epochs of the training; null: as many as total_iter requires."""
    num_iterations_per_epoch: int = 250
    """Training iterations between two validations."""
    num_val_iterations_per_epoch: int = 50
    """Batches of one validation."""
    gradient_clip: float | None = 0.01
    """Maximum L2 norm of the total gradient; null: no clipping."""
    precision: str = "auto"
    """auto (bf16 on CUDA, fp32 elsewhere), fp32, bf16 or fp16."""
    batch_size: int | None = None
    """Samples per iteration over all GPUs; null: from the plans."""
    patch_size: list[int] | None = None
    """Height and width in pixels, in 3-D the number of slices first; null: from the plans, but with model.input_scale
    above 1 no higher and wider than 1024 pixels after enlarging. Multiples of 32 avoid padding."""
    mirror_axes: list[int] | None = None
    """Axes of the patch along which training and prediction mirror, from 0; null: all. [] for none; [1,2] spares the
    depth of a volume."""
    oversample_foreground_percent: float = 0.33
    """Share of the samples in a batch that must contain foreground, in [0, 1]."""
    save_every: int = 50
    """Epochs between writes of checkpoint_latest."""

    def __post_init__(self) -> None:
        require_choice("training.optimizer", self.optimizer, OPTIMIZERS)
        require_choice("training.scheduler", self.scheduler, SCHEDULERS)
        require_choice("training.precision", self.precision, PRECISIONS)
        for name in ("lr", "weight_decay", "lora_lr_multiplier", "backbone_lr_multiplier", "warmup_iters"):
            require_range(f"training.{name}", getattr(self, name), 0)
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"training.layer_decay={self.layer_decay} must be above 0 and at most 1, which is off")
        require_range("training.oversample_foreground_percent", self.oversample_foreground_percent, 0, 1)
        for name in ("total_iter", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "save_every"):
            require_range(f"training.{name}", getattr(self, name), 1)
        for name in ("num_epochs", "batch_size"):
            if getattr(self, name) is not None:
                require_range(f"training.{name}", getattr(self, name), 1)
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise UsageError(f"training.gradient_clip={self.gradient_clip} must be above 0, or null for no limit")
        if self.patch_size is not None and (len(self.patch_size) not in (2, 3) or min(self.patch_size) < 1):
            raise UsageError(
                f"training.patch_size={self.patch_size} must be two sizes in pixels, for example [512,512], or, for a "
                f"3-D configuration, three, the slices first: [32,256,256]"
            )

    def chosen_mirror_axes(self, planned: Sequence[int]) -> tuple[int, ...]:
        """Returns the axes to mirror.

        Args:
            planned: those of nnU-Net, all axes of the patch.

        Raises:
            UsageError: the patch does not have a chosen axis.
        """
        if self.mirror_axes is None:
            return tuple(planned)
        if len(set(self.mirror_axes) & set(planned)) < len(self.mirror_axes):
            raise UsageError(
                f"training.mirror_axes={self.mirror_axes} must be different axes of the patch, of {list(planned)}"
            )
        return tuple(self.mirror_axes)

    def epochs(self) -> int:
        """Number of epochs, see the module docstring."""
        return self.num_epochs or math.ceil(self.total_iter / self.num_iterations_per_epoch)

    def precision_on(self, device_type: str) -> str:
        """Resolves the precision to fp32, bf16 or fp16 for a device type such as `cuda`."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if device_type == "cuda" else "fp32"


@dataclass
class DenseTrainingConfig(ViTTrainingConfig):
    """Optimisation of a dense head with nnU-Net's loss, whose gradients are larger than those of averaged masks."""

    lr: float = 3e-4
    """Peak learning rate of the head."""
    gradient_clip: float | None = 1.0
    """Maximum L2 norm of the total gradient; null: no clipping."""


TRAINING_CONFIGS = {"dense": DenseTrainingConfig, "queries": ViTTrainingConfig}  # by the kind of head

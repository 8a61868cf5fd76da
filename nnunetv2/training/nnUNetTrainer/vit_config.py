"""Settings that all trainers of vision transformers share: backbone, LoRA, optimisation.

An iteration is one optimiser step on one batch. A training lasts `num_epochs` times `num_iterations_per_epoch`; where
`num_epochs` is null, `total_iter` decides and is rounded up to whole epochs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from dinov3.eval.segmentation import config_training
from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.input_adapter import CHANNEL_ADAPTATIONS, INPUT_NORMS

TUNINGS = ("frozen", "lora", "full")
SCHEDULERS = ("WarmupOneCycleLR", "poly")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OUT_LAYERS = ("FOUR_EVEN_INTERVALS", "FOUR_LAST")
# Never needed to rebuild a trained network, or with one possible value.
_NOT_IN_NETWORK = ("type", "pretrained", "checkpoint", "num_encoder_blocks")


@dataclass
class ViTModelConfig:
    """The vision transformer, where its weights come from, and how images enter it."""

    backbone: str = "dinov3"
    """Family of the vision transformer."""
    backbone_size: str = "large"
    """tiny, small, small_plus, base, large, huge_plus or 7b; there are no released weights for tiny."""
    pretrained: bool = True
    """Start from the released weights (downloaded once by timm's hub); false: from random ones."""
    checkpoint: str | None = None
    """File of backbone weights (timm's, Meta's or Hugging Face's names) to start from instead."""
    tuning: str | None = None
    """What of the backbone is trained: frozen (nothing), lora or full; null: as lora.enabled says."""
    channel_adaptation: str = "repeat"
    """How other than three channels enter: repeat, conv1x1 or inflate, see `nnunetv2.model.input_adapter`."""
    input_norm: str = "dataset"
    """dataset: as nnU-Net's plans normalise; imagenet: with ImageNet's constants, for intensities in [0, 1]."""
    backbone_out_layers: str = "FOUR_EVEN_INTERVALS"
    """The four blocks whose features are used: FOUR_EVEN_INTERVALS or FOUR_LAST."""

    def __post_init__(self) -> None:
        require_choice("model.channel_adaptation", self.channel_adaptation, CHANNEL_ADAPTATIONS)
        require_choice("model.input_norm", self.input_norm, INPUT_NORMS)
        require_choice("model.backbone_out_layers", self.backbone_out_layers, OUT_LAYERS)
        if self.tuning is not None:
            require_choice("model.tuning", self.tuning, TUNINGS)


@dataclass
class LoRAConfig(config_training.LoRAConfig):
    """Low-rank adapters in the backbone; on unless `model.tuning` says otherwise."""

    enabled: bool = True
    """Train adapters while the backbone's own weights stay; `model.tuning`, where set, goes before this."""


@dataclass
class ViTTrainingConfig:
    """Optimisation, length of the training, batches."""

    optimizer: str = "adamw"
    """adamw."""
    lr: float = 1e-4
    """Highest learning rate of the head and of LoRA's adapters."""
    weight_decay: float = 0.05
    """For weight matrices and kernels; norms, biases, queries and other embeddings have none."""
    backbone_lr_multiplier: float = 0.1
    """Learning rate of the backbone's own weights as a part of lr; only for tuning: full."""
    scheduler: str = "WarmupOneCycleLR"
    """After a linear warm-up: WarmupOneCycleLR (half a cosine to 0) or poly (power 0.9), stepped every iteration."""
    warmup_iters: int = 1500
    """Iterations of the warm-up; at most a tenth of the training is used for it."""
    total_iter: int = 40000
    """Iterations of the training, used where num_epochs is null."""
    num_epochs: int | None = None
    """Epochs of the training; null: as many as total_iter needs."""
    num_iterations_per_epoch: int = 250
    """Training iterations between two validations."""
    num_val_iterations_per_epoch: int = 50
    """Batches of one validation."""
    gradient_clip: float | None = 0.01
    """Largest L2 norm of the gradient of all parameters together; null: no limit."""
    precision: str = "auto"
    """auto (bf16 on CUDA, fp32 elsewhere), fp32, bf16 or fp16."""
    batch_size: int | None = None
    """Samples per iteration over all GPUs; null: that of the plans."""
    patch_size: list[int] | None = None
    """Height and width in pixels; null: that of the plans. Multiples of 32 waste no computation."""
    oversample_foreground_percent: float = 0.33
    """Share of a batch whose crops must hold foreground, in [0, 1]."""
    save_every: int = 50
    """Epochs between two writings of checkpoint_latest."""

    def __post_init__(self) -> None:
        require_choice("training.optimizer", self.optimizer, ("adamw",))
        require_choice("training.scheduler", self.scheduler, SCHEDULERS)
        require_choice("training.precision", self.precision, PRECISIONS)
        for name in ("lr", "weight_decay", "backbone_lr_multiplier", "warmup_iters"):
            require_range(f"training.{name}", getattr(self, name), 0)
        require_range("training.oversample_foreground_percent", self.oversample_foreground_percent, 0, 1)
        for name in ("total_iter", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "save_every"):
            require_range(f"training.{name}", getattr(self, name), 1)
        for name in ("num_epochs", "batch_size"):
            if getattr(self, name) is not None:
                require_range(f"training.{name}", getattr(self, name), 1)
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise UsageError(f"training.gradient_clip={self.gradient_clip} must be above 0, or null for no limit")
        if self.patch_size is not None and (len(self.patch_size) != 2 or min(self.patch_size) < 1):
            raise UsageError(
                f"training.patch_size={self.patch_size} must be two sizes in pixels, for example [512,512]"
            )

    def epochs(self) -> int:
        """Number of epochs, see the note on top of this file."""
        return self.num_epochs or math.ceil(self.total_iter / self.num_iterations_per_epoch)

    def precision_on(self, device_type: str) -> str:
        """fp32, bf16 or fp16 for a device type such as `cuda`."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if device_type == "cuda" else "fp32"


@dataclass
class DenseTrainingConfig(ViTTrainingConfig):
    """Optimisation of a dense head with nnU-Net's loss, whose gradients are larger than those of averaged masks."""

    gradient_clip: float | None = 1.0
    """Largest L2 norm of the gradient of all parameters together; null: no limit."""


@dataclass
class ViTnnUNetConfig:
    """All settings of one training; each trainer has a subclass with its own `model`."""

    network_class: ClassVar[str]
    """Dotted name of the network, for the plans; a property where the settings decide."""
    file_name: ClassVar[str]
    """Where the folder of a fold keeps the settings that it was trained with."""

    model: ViTModelConfig = field(default_factory=ViTModelConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    training: ViTTrainingConfig = field(default_factory=ViTTrainingConfig)
    use_nnunet_augmentation: bool = True
    """true: nnU-Net's augmentation, so that architectures are compared on equal terms; false: that of the DINOv3 tree,
    resize, crop and flip."""
    use_sliding_window_inference: bool = True
    """true: nnU-Net's sliding window; false: each image, or slice, as a whole."""

    def __post_init__(self) -> None:
        if self.model.tuning is None:
            self.model.tuning = "lora" if self.lora.enabled else "frozen"
        self.lora.enabled = self.model.tuning == "lora"

    def architecture(self, *, regions: bool) -> dict[str, Any]:
        """The plans' architecture section: plain data from which the network is rebuilt.

        Args:
            regions: whether the dataset's labels are regions, which may overlap.
        """
        kwargs = {name: value for name, value in asdict(self.model).items() if name not in _NOT_IN_NETWORK}
        if self.lora.enabled:
            kwargs["lora"] = {name: value for name, value in asdict(self.lora).items() if name != "enabled"}
        kwargs["regions"] = regions
        if not self.use_sliding_window_inference:
            kwargs["use_sliding_window_inference"] = False
        return {"network_class_name": self.network_class, "arch_kwargs": kwargs, "_kw_requires_import": []}

"""All settings of the training or evaluation of a segmentation head, and their loading.

Names and defaults are those of Meta's configuration, so that its YAML files load; the sections `m2f_train`, `lora` and
`ema` are additions. One default differs: `decoder_head.backbone_out_layers` is FOUR_EVEN_INTERVALS for the m2f head,
which reads four blocks and cannot work with Meta's LAST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.eval.segmentation.settings.head import DECODERS, OUT_LAYERS, SIZE_MULTIPLE, DecoderConfig
from dinov3.eval.segmentation.settings.images import (
    DEFAULT_MEAN,
    DEFAULT_STD,
    METRICS,
    DatasetConfig,
    EvalConfig,
    EvalTransformConfig,
    TrainTransformConfig,
    TransformConfig,
)
from dinov3.eval.segmentation.settings.training import (
    EMAConfig,
    LoRAConfig,
    M2FTrainConfig,
    OptimizerConfig,
    SchedulerConfig,
    TrainConfig,
)
from dinov3.eval.setup import ModelConfig
from dinov3.utils.devices import DEVICE_NAMES
from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import load_config, require_choice, require_multiple, require_range

if TYPE_CHECKING:
    import torch

__all__ = [
    "DECODERS",
    "DEFAULT_MEAN",
    "DEFAULT_STD",
    "METRICS",
    "OUT_LAYERS",
    "DatasetConfig",
    "DecoderConfig",
    "EMAConfig",
    "EvalConfig",
    "EvalTransformConfig",
    "LoRAConfig",
    "M2FTrainConfig",
    "ModelConfig",
    "ModelDtype",
    "OptimizerConfig",
    "SchedulerConfig",
    "SegmentationConfig",
    "TrainConfig",
    "TrainTransformConfig",
    "TransformConfig",
    "load_segmentation_config",
    "shipped_configs",
]

CONFIGS = Path(__file__).parent / "configs"
RELEASED_SEGMENTOR = "dinov3_vit7b16_ms"
"""The value of `load_from` that selects Meta's released ViT-7B with its Mask2Former head for ADE20K."""
RGB = 3  # channels of every loaded image
PATCH_SIZE = 16  # pixels, of all released DINOv3 vision transformers


class ModelDtype(Enum):
    """Precision of the network's forward pass; weights stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    @property
    def autocast_dtype(self) -> torch.dtype:
        """The corresponding torch dtype."""
        import torch

        return getattr(torch, self.value)


@dataclass
class SegmentationConfig:
    """All settings of one training or evaluation."""

    model: ModelConfig | None = None
    """The backbone. Not required to evaluate load_from=dinov3_vit7b16_ms."""
    bs: int = 2
    """Images per iteration and process."""
    n_gpus: int = 8
    """Number of processes that the recipe assumes. The actual number is set by torchrun; the log shows the global
    batch."""
    num_workers: int = 6
    """Image loading workers per training process; 0: none."""
    model_dtype: ModelDtype = ModelDtype.FLOAT32
    """Precision of the network: FLOAT32 or BFLOAT16 (autocast). Losses are always computed in float32."""
    seed: int = 100
    """Seed of the initial weights, the order of the images, their augmentation and dropout."""
    datasets: DatasetConfig = field(default_factory=DatasetConfig)
    metric_to_save: str = "mIoU"
    """Metric by which the best evaluation is selected and saved as model_best.pth."""
    decoder_head: DecoderConfig = field(default_factory=DecoderConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    transforms: TransformConfig = field(default_factory=TransformConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    m2f_train: M2FTrainConfig = field(default_factory=M2FTrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    train_backbone: bool = False
    """Train the backbone's own weights as well; false: it is frozen or has LoRA adapters."""
    checkpoint_interval: int = 1000
    """Iterations between writes of checkpoint_latest.pth, from which resume=true resumes."""
    output_dir: str | None = None
    """Folder of all results. Required."""
    load_from: str | None = None
    """Evaluate this instead of training: a .pth file of a training, a URL, or dinov3_vit7b16_ms (released by Meta)."""
    resume: bool = False
    """Resume the training in output_dir; start it if there is none yet."""
    device: str | None = None
    """cpu, cuda or mps; null: model.device if set, else cuda if available, else cpu."""

    def __post_init__(self) -> None:
        for name in ("bs", "n_gpus", "checkpoint_interval"):
            require_range(name, getattr(self, name), 1)
        for name in ("num_workers", "seed"):
            require_range(name, getattr(self, name), 0)
        require_choice("metric_to_save", self.metric_to_save, METRICS)
        if self.lora.enabled and self.train_backbone:
            raise UsageError(
                "lora.enabled=true leaves the backbone's own weights as they are and train_backbone=true trains them; "
                "keep one of the two"
            )
        if self.resume and self.load_from:
            raise UsageError("resume=true goes on with a training and load_from evaluates a model; give one of the two")
        names, num_classes = self.datasets.class_names, self.decoder_head.num_classes
        if names and len(names) != num_classes:
            raise UsageError(
                f"datasets.class_names has {len(names)} names and decoder_head.num_classes is {num_classes}; name all "
                f"classes, or none"
            )
        channels = self.model.kwargs.get("in_chans", RGB) if self.model else RGB
        if channels != RGB:
            raise UsageError(
                f"model.kwargs.in_chans={channels} is not available: images are read as {RGB} channels, grey ones "
                f"repeated; leave it out"
            )
        self._settle_device()
        self._check_input_sizes()

    def _settle_device(self) -> None:
        of_model = self.model.device if self.model else None
        for name, device in (("device", self.device), ("model.device", of_model)):
            if device is not None:
                require_choice(name, device, DEVICE_NAMES)
        if self.device and of_model and self.device != of_model:
            raise UsageError(f"device={self.device} and model.device={of_model} differ; give one of the two")
        self.device = self.device or of_model

    def _check_input_sizes(self) -> None:
        if self.decoder_head.type == "m2f":
            unit, reason = SIZE_MULTIPLE, "of the m2f head"
        else:
            unit = self.model.kwargs.get("patch_size", PATCH_SIZE) if self.model else PATCH_SIZE
            if not isinstance(unit, int) or unit < 1:
                return  # the model rejects it
            reason = "the backbone's patch size"
        if self.transforms.train.crop_size is not None:
            require_multiple("transforms.train.crop_size", self.transforms.train.crop_size, unit, reason)
        if self.eval.mode == "slide":
            require_multiple("eval.crop_size", [self.eval.crop_size], unit, reason)


def load_segmentation_config(words: Sequence[str]) -> SegmentationConfig:
    """Loads the settings: defaults < YAML file < words.

    Args:
        words: `config=FILE`, at most once, and `key=value` in any order. FILE is a path, or the name of a file shipped
            with this package, with or without `.yaml`.

    Raises:
        UsageError: the file does not exist, a key is unknown, or a value is invalid.
    """
    files = [word.partition("=")[2] for word in words if word.startswith("config=")]
    if len(files) > 1:
        raise UsageError(f"config= is given {len(files)} times; give one file and override it by key=value")
    path = _config_path(files[0]) if files else None
    keys = {word.partition("=")[0] for word in words}
    settings = [word for word in words if not word.startswith("config=")]
    if "load_from" in keys and "resume" not in keys:  # the file may stem from a resumed training
        settings.append("resume=false")
    return load_config(SegmentationConfig, path, settings)


def shipped_configs() -> list[str]:
    """Names, without `.yaml`, of the files shipped with this package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def _config_path(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = CONFIGS / f"{path.stem if path.suffix == '.yaml' else name}.yaml"
    if path.name == name and name and shipped.is_file():
        return shipped
    raise UsageError(
        f"config={name}: there is no such file; give the path of a YAML file, or one of {', '.join(shipped_configs())}"
    )

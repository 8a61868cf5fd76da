"""Settings of the images: where they are, how they are resized and cut, how they are evaluated. Sizes are in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import require_choice, require_range

# Images stay on their scale from 0 to 255.
DEFAULT_MEAN = tuple(255 * mean for mean in (0.485, 0.456, 0.406))
DEFAULT_STD = tuple(255 * std for std in (0.229, 0.224, 0.225))

INFERENCE_MODES = ("slide", "whole")
METRICS = ("mIoU", "acc", "aAcc", "dice", "fscore", "precision", "recall", "mDice", "mAcc")
"""Names of the metrics. The first seven are Meta's; mDice and mAcc are other names of dice and acc."""


@dataclass
class DatasetConfig:
    """Images and label maps."""

    root: str = ""
    """Folder of the dataset."""
    train: str = ""
    """What is trained on, for example ADE20K:split=TRAIN."""
    val: str = ""
    """What is evaluated on, for example ADE20K:split=VAL."""
    class_names: list[str] = field(default_factory=list)
    """Names of all classes, in order, for the legend of eval.save_overlays; empty: their numbers."""


@dataclass
class TrainTransformConfig:
    """Augmentation."""

    img_size: int | list[int] | None = None
    """Short side, or [height, width], that images are resized to; null: as they are."""
    random_img_size_ratio_range: list[float] | None = None
    """[smallest, largest] factor, drawn for each image, that img_size is multiplied by; null: 1."""
    crop_size: int | list[int] | None = None
    """[height, width] of the training inputs, or one number for both; null: whole images."""
    flip_prob: float = 0.0
    """Probability of swapping left and right."""
    photometric_distortion: bool = True
    """Change brightness, contrast, saturation and hue at random; false where channels are not colours."""

    def __post_init__(self) -> None:
        name = "transforms.train."
        _require_size(f"{name}img_size", self.img_size)
        _require_size(f"{name}crop_size", self.crop_size)
        require_range(f"{name}flip_prob", self.flip_prob, 0, 1)
        if isinstance(self.crop_size, int):
            self.crop_size = [self.crop_size, self.crop_size]
        ratios = self.random_img_size_ratio_range
        if ratios is not None and not (len(ratios) == 2 and 0 < ratios[0] <= ratios[1] < math.inf):
            raise UsageError(
                f"{name}random_img_size_ratio_range={ratios} must be the smallest and the largest factor, above 0, "
                f"for example [0.5,2.0]"
            )


@dataclass
class EvalTransformConfig:
    """Sizes at which images are predicted."""

    img_size: int | list[int] | None = None
    """Short side, or [height, width], that images are resized to; null: as they are. Metrics use the label's size."""
    tta_ratios: list[float] = field(default_factory=lambda: [1.0])
    """With eval.use_tta: factors of img_size at which an image is predicted."""

    def __post_init__(self) -> None:
        _require_size("transforms.eval.img_size", self.img_size)
        if not self.tta_ratios or not all(0 < ratio < math.inf for ratio in self.tta_ratios):
            raise UsageError(
                f"transforms.eval.tta_ratios={self.tta_ratios} must be factors above 0, for example [0.9,1.0,1.1]"
            )


@dataclass
class TransformConfig:
    """From image files to inputs of the network."""

    train: TrainTransformConfig = field(default_factory=TrainTransformConfig)
    eval: EvalTransformConfig = field(default_factory=EvalTransformConfig)
    mean: list[float] = field(default_factory=lambda: list(DEFAULT_MEAN))
    """Mean of red, green and blue on the scale 0 to 255; the default is that of the LVD-1689M weights (ImageNet's)."""
    std: list[float] = field(default_factory=lambda: list(DEFAULT_STD))
    """Standard deviation of the three on the same scale."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise UsageError(f"transforms.{name}={values} must be three numbers, for red, green and blue")
        if min(self.std) <= 0:
            raise UsageError(f"transforms.std={self.std} must be above 0")


@dataclass
class EvalConfig:
    """Evaluation, during a training and of a finished model."""

    compute_metric_per_image: bool = False
    """Average the metrics of the images, so that each image counts alike; false: metrics of all pixels together."""
    reduce_zero_label: bool = True
    """Label 0 of the files is ignored and labels 1 to K are the classes, as in ADE20K; also for training."""
    mode: str = "slide"
    """slide: overlapping windows; whole: the image at once."""
    crop_size: int | None = 512
    """Side of a window, for mode=slide."""
    stride: int | None = 341
    """Distance of two windows, for mode=slide; at most crop_size."""
    eval_interval: int = 40_000
    """Iterations between two evaluations in a training; the end is always evaluated."""
    use_tta: bool = False
    """Test-time augmentation of a finished model: average over tta_ratios, and those with left and right swapped."""
    save_overlays: bool = False
    """Also write each image with its predicted classes in colour."""

    def __post_init__(self) -> None:
        require_choice("eval.mode", self.mode, INFERENCE_MODES)
        require_range("eval.eval_interval", self.eval_interval, 1)
        if self.mode == "whole":
            return
        for name in ("crop_size", "stride"):
            if getattr(self, name) is None:
                raise UsageError(f"eval.{name} is null; eval.mode=slide needs a number, or set eval.mode=whole")
            require_range(f"eval.{name}", getattr(self, name), 1)
        if self.stride > self.crop_size:
            raise UsageError(
                f"eval.stride={self.stride} is larger than eval.crop_size={self.crop_size}, which would leave gaps; "
                f"give at most {self.crop_size}"
            )


def _require_size(name: str, size: int | list[int] | None) -> None:
    sides = size if isinstance(size, list) else [1 if size is None else size] * 2
    if len(sides) != 2 or min(sides) < 1:
        raise UsageError(f"{name}={size} is not a size; give one number of pixels or [height,width], each at least 1")

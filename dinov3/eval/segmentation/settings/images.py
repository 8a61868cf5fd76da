"""Settings of the images: location, resizing, cropping and evaluation. Sizes are in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import require_choice, require_range

# Images keep their scale from 0 to 255.
DEFAULT_MEAN = tuple(255 * mean for mean in (0.485, 0.456, 0.406))
DEFAULT_STD = tuple(255 * std for std in (0.229, 0.224, 0.225))

INFERENCE_MODES = ("slide", "whole")
METRICS = ("mIoU", "acc", "aAcc", "dice", "fscore", "precision", "recall", "mDice", "mAcc")
"""Names of the metrics. The first seven are Meta's; mDice and mAcc are aliases of dice and acc."""


@dataclass
class DatasetConfig:
    """Images and label maps."""

    root: str = ""
    """Folder of the dataset."""
    train: str = ""
    """Training split, for example ADE20K:split=TRAIN."""
    val: str = ""
    """Validation split, for example ADE20K:split=VAL."""
    class_names: list[str] = field(default_factory=list)
    """Names of all classes, in order, for the legend of eval.save_overlays; empty: class numbers."""


@dataclass
class TrainTransformConfig:
    """Augmentation."""

    img_size: int | list[int] | None = None
    """Short side, or [height, width], that images are resized to; null: original size."""
    random_img_size_ratio_range: list[float] | None = None
    """[smallest, largest] random factor per image by which img_size is multiplied; null: 1."""
    crop_size: int | list[int] | None = None
    """[height, width] of the training crops, or one number for both; null: whole images."""
    flip_prob: float = 0.0
    """Probability of a horizontal flip."""
    photometric_distortion: bool = True
    """Change brightness, contrast, saturation and hue at random; use false if channels are not colours."""

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
    """Short side, or [height, width], that images are resized to; null: original size. Metrics use the label's size."""
    tta_ratios: list[float] = field(default_factory=lambda: [1.0])
    """With eval.use_tta: factors of img_size at which images are predicted."""

    def __post_init__(self) -> None:
        _require_size("transforms.eval.img_size", self.img_size)
        if not self.tta_ratios or not all(0 < ratio < math.inf for ratio in self.tta_ratios):
            raise UsageError(
                f"transforms.eval.tta_ratios={self.tta_ratios} must be factors above 0, for example [0.9,1.0,1.1]"
            )


@dataclass
class TransformConfig:
    """Conversion of images to network inputs."""

    train: TrainTransformConfig = field(default_factory=TrainTransformConfig)
    eval: EvalTransformConfig = field(default_factory=EvalTransformConfig)
    mean: list[float] = field(default_factory=lambda: list(DEFAULT_MEAN))
    """Mean of red, green and blue on the scale 0 to 255; the default belongs to the LVD-1689M weights (ImageNet's)."""
    std: list[float] = field(default_factory=lambda: list(DEFAULT_STD))
    """Standard deviation of red, green and blue on the same scale."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise UsageError(f"transforms.{name}={values} must be three numbers, for red, green and blue")
        if min(self.std) <= 0:
            raise UsageError(f"transforms.std={self.std} must be above 0")


@dataclass
class EvalConfig:
    """Evaluation, during training and of a trained model."""

    compute_metric_per_image: bool = False
    """Average the metrics of the images, so that each image has equal weight; false: metrics over all pixels."""
    reduce_zero_label: bool = True
    """Label 0 of the files is ignored and labels 1 to K are the classes, as in ADE20K; also for training."""
    mode: str = "slide"
    """slide: overlapping windows; whole: the image at once."""
    crop_size: int | None = 512
    """Side of a window, for mode=slide."""
    stride: int | None = 341
    """Distance between windows, for mode=slide; at most crop_size."""
    eval_interval: int = 40_000
    """Iterations between evaluations during training; the final model is always evaluated."""
    use_tta: bool = False
    """Test-time augmentation of a trained model: average over tta_ratios, each plain and flipped."""
    save_overlays: bool = False
    """Also write each image with its predicted classes as colour overlay."""

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

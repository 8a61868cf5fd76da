"""Converts samples to network inputs: random crops for training, resized views for evaluation.

Images are (3, H, W) uint8, labels (H, W) int64. All random numbers come from a generator passed as argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov3.eval.segmentation.data.image_geometry import (
    ImageSize,
    draw_crop,
    pad_to,
    resize_image,
    resize_label,
    scaled_size,
)
from dinov3.eval.segmentation.data.labels import IGNORE_INDEX, reduce_zero_label
from dinov3.eval.segmentation.data.photometric_distortion import distort_colours
from dinov3.eval.segmentation.settings.images import DEFAULT_MEAN as IMAGENET_MEAN
from dinov3.eval.segmentation.settings.images import DEFAULT_STD as IMAGENET_STD
from dinov3.eval.segmentation.settings.images import TrainTransformConfig
from dinov3.utils.errors import UsageError

REDUCED_SIDE_MULTIPLE = 32  # for views smaller than the image size, as in Meta's evaluation


@dataclass(frozen=True)
class SegmentationTrainTransform:
    """Random resize, random crop, flip and colour distortion; see `make_segmentation_train_transforms`."""

    img_size: ImageSize
    random_img_size_ratio_range: Sequence[float] | None
    crop_size: Sequence[int] | None
    flip_prob: float
    reduce_zero_label: bool
    mean: Sequence[float]
    std: Sequence[float]
    photometric_distortion: bool
    size_multiple: int

    def __call__(self, image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws one training input from a sample.

        Returns:
            The image (3, h, w), float32, and its label map (h, w), int64; (h, w) is `crop_size` if given, else
            multiples of `size_multiple`.
        """
        ratio = _draw_ratio(self.random_img_size_ratio_range, generator)
        size = scaled_size(image.shape[-2:], self.img_size, ratio)
        image, label = resize_image(image, size), resize_label(label, size)
        if self.reduce_zero_label:
            label = reduce_zero_label(label)
        if self.crop_size is not None:
            rows, columns = draw_crop(label, self.crop_size, generator)
            image, label = image[:, rows, columns], label[rows, columns]
        if torch.rand((), generator=generator).item() < self.flip_prob:
            image, label = image.flip(-1), label.flip(-1)
        if self.photometric_distortion:
            image = distort_colours(image, generator)
        image = _normalize(image, self.mean, self.std)
        size = self.crop_size or [-(-side // self.size_multiple) * self.size_multiple for side in label.shape]
        image, label = pad_to(image, size, 0.0), pad_to(label, size, IGNORE_INDEX)
        return image.contiguous(), label.contiguous()


@dataclass(frozen=True)
class View:
    """One resized version of an image, as network input."""

    image: Tensor
    """(3, h, w) float32."""
    is_flipped: bool
    """True if flipped horizontally; the prediction must be flipped back."""


@dataclass(frozen=True)
class SegmentationEvalTransform:
    """Resized views of whole images; see `make_segmentation_eval_transforms`."""

    img_size: ImageSize
    ratios: Sequence[float]
    add_flipped: bool
    reduce_zero_label: bool
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, image: Tensor, label: Tensor) -> tuple[list[View], Tensor]:
        """Creates all views of an image; the label map (H, W), int64, keeps the size of the file."""
        views = []
        for ratio in self.ratios:
            size = scaled_size(image.shape[-2:], self.img_size, ratio, multiple_if_reduced=REDUCED_SIDE_MULTIPLE)
            views.append(View(_normalize(resize_image(image, size), self.mean, self.std), is_flipped=False))
        if self.add_flipped:
            views += [View(view.image.flip(-1), is_flipped=True) for view in views]
        return views, reduce_zero_label(label) if self.reduce_zero_label else label


def make_segmentation_train_transforms(
    *,
    img_size: ImageSize = None,
    random_img_size_ratio_range: Sequence[float] | None = None,
    crop_size: Sequence[int] | None = None,
    flip_prob: float = TrainTransformConfig.flip_prob,
    reduce_zero_label: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    photometric_distortion: bool = TrainTransformConfig.photometric_distortion,
    size_multiple: int = 1,
) -> SegmentationTrainTransform:
    """Creates the augmentation with which Meta trains segmentation heads.

    Images are resized with antialiased bilinear interpolation, labels by nearest neighbour.

    Args:
        img_size: short side, (height, width), or None for the size in the file.
        random_img_size_ratio_range: range of the uniform random factor for the size; None: 1.
        crop_size: (height, width) of a random crop, if possible one in which no class fills more than 75 % of the
            labelled pixels. Smaller images are padded at the right and bottom with the mean colour and the label 255.
            None: the whole image, padded in the same way.
        flip_prob: probability of a horizontal flip.
        reduce_zero_label: label 0 is ignored and labels 1 to K become classes 0 to K - 1.
        mean: mean of each channel, on the scale 0 to 255.
        std: standard deviation of each channel, on the scale 0 to 255.
        photometric_distortion: change brightness, contrast, saturation and hue at random. Hue is rotated by any angle:
            disable this if the channels are stains or sensors rather than colours.
        size_multiple: without `crop_size`, whole images are padded to multiples of this.

    Raises:
        UsageError: a size, range or probability is invalid.
    """
    _check_size("transforms.train.img_size", img_size)
    if random_img_size_ratio_range is not None:
        name = "transforms.train.random_img_size_ratio_range"
        _check_ratios(name, random_img_size_ratio_range)
        if not _is_pair(random_img_size_ratio_range) or random_img_size_ratio_range[0] > random_img_size_ratio_range[1]:
            raise UsageError(f"{name}={random_img_size_ratio_range!r}; give [smallest, largest]")
    if crop_size is not None and not _is_pair(crop_size):
        raise UsageError(f"transforms.train.crop_size={crop_size!r} is not a size; give [height, width]")
    _check_size("transforms.train.crop_size", crop_size, "[height, width]")
    if not 0 <= flip_prob <= 1:
        raise UsageError(f"transforms.train.flip_prob={flip_prob} is no probability; give a number between 0 and 1")
    _check_normalization(mean, std)
    return SegmentationTrainTransform(
        img_size,
        random_img_size_ratio_range,
        crop_size,
        flip_prob,
        reduce_zero_label,
        mean,
        std,
        photometric_distortion,
        size_multiple,
    )


def make_segmentation_eval_transforms(
    *,
    img_size: ImageSize = None,
    tta_ratios: Sequence[float] = (1.0,),
    use_tta: bool = False,
    reduce_zero_label: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> SegmentationEvalTransform:
    """Creates the views for prediction: one, or with test-time augmentation one per ratio, plain and flipped.

    Args:
        img_size: short side, (height, width), or None for the size in the file.
        tta_ratios: with `use_tta`, size of each view relative to `img_size`. Short sides below `img_size` are rounded
            up to a multiple of 32.
        use_tta: create these views and, after them, their horizontal flips.
        reduce_zero_label: label 0 is ignored and labels 1 to K become classes 0 to K - 1.
        mean: mean of each channel, on the scale 0 to 255.
        std: standard deviation of each channel, on the scale 0 to 255.

    Raises:
        UsageError: a size or ratio is invalid.
    """
    _check_size("transforms.eval.img_size", img_size)
    _check_ratios("transforms.eval.tta_ratios", tta_ratios)
    _check_normalization(mean, std)
    ratios = tuple(tta_ratios) if use_tta else (1.0,)
    return SegmentationEvalTransform(img_size, ratios, use_tta, reduce_zero_label, mean, std)


def _draw_ratio(ratio_range: Sequence[float] | None, generator: torch.Generator) -> float:
    low, high = ratio_range or (1.0, 1.0)
    return low + (high - low) * torch.rand((), generator=generator).item()


def _normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (image.float() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def _check_size(name: str, size: ImageSize, accepted: str = "a number of pixels or [height, width]") -> None:
    sides = size if _is_pair(size) else (size,)
    if size is not None and not all(isinstance(side, int) and side >= 1 for side in sides):
        raise UsageError(f"{name}={size!r} is not a size; give {accepted}")


def _check_ratios(name: str, ratios: Sequence[float]) -> None:
    if not ratios or not all(0 < ratio < math.inf for ratio in ratios):
        raise UsageError(f"{name}={ratios!r}; give numbers above 0, where 1 keeps the size")


def _check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise UsageError(
            f"transforms.mean={mean!r} and transforms.std={std!r}; give one number for each of the three channels, on "
            "the scale 0 to 255, and every std above 0"
        )


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2

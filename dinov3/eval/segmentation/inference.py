"""Class scores of every pixel of an image, predicted as a whole or in overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dinov3.eval.segmentation.models.heads.semantic_scores import semantic_scores
from dinov3.eval.segmentation.settings.head import DECODERS, SIZE_MULTIPLE
from dinov3.eval.segmentation.settings.images import INFERENCE_MODES, EvalConfig
from dinov3.utils.errors import UsageError

LARGEST_ON_DEVICE = 2**30  # bytes of class scores; larger images are accumulated in main memory


@torch.no_grad()  # not inference_mode: tensors that a model caches must stay usable in training
def make_inference(
    x: Tensor,
    segmentation_model: nn.Module,
    inference_mode: str = "whole",
    decoder_head_type: str = "linear",
    rescale_to: Sequence[int] = (512, 512),
    n_output_channels: int | None = None,
    crop_size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    apply_horizontal_flip: bool = False,
    num_max_forward: int = 1,
    output_activation: Callable[[Tensor], Tensor] | None = None,
    windows_per_forward: int = 1,
) -> Tensor:
    """Predicts one view of an image at the size of its label.

    Steps: scores at the size of the view, resizing, flipping back, activation. "whole" equals "slide" with a single
    window; the view keeps its own size (Meta's code resizes it to 512 x 512 first).

    Args:
        x: (B, 3, H, W) normalised image, of any size and on any device.
        segmentation_model: See `slide_inference`.
        inference_mode: "whole" or "slide".
        decoder_head_type: "linear" or "m2f".
        rescale_to: Height and width of the result.
        n_output_channels: K, to check the number of the model's classes; None: no check.
        crop_size: Height and width of a window, for "slide".
        stride: Vertical and horizontal distance between windows, for "slide".
        apply_horizontal_flip: `x` is mirrored horizontally; the result is mirrored back.
        num_max_forward: See `slide_inference`.
        output_activation: Applied to the resized scores (B, K, h, w).
        windows_per_forward: See `slide_inference`.

    Returns:
        (B, K, *rescale_to), at least float32, on the device of the model or, above `LARGEST_ON_DEVICE`, on the CPU.

    Raises:
        UsageError: The mode or head is unknown, the windows are undefined or leave gaps, or the model does not have
            `n_output_channels` classes.
    """
    if inference_mode not in INFERENCE_MODES:
        raise UsageError(
            f"The inference mode {inference_mode!r} is unknown; choose one of {', '.join(INFERENCE_MODES)}."
        )
    if inference_mode == "whole":
        crop_size = stride = tuple(x.shape[-2:])
    elif crop_size is None or stride is None:
        raise UsageError(
            f"The inference mode 'slide' needs a crop size and a stride; given are {crop_size} and {stride}."
        )
    scores = slide_inference(
        x,
        segmentation_model,
        decoder_head_type,
        n_output_channels,
        crop_size,
        stride,
        num_max_forward=num_max_forward,
        windows_per_forward=windows_per_forward,
    )
    scores = _resize(scores, rescale_to)
    if apply_horizontal_flip:
        scores = scores.flip(-1)
    return scores if output_activation is None else output_activation(scores)


@torch.no_grad()
def slide_inference(
    inputs: Tensor,
    segmentation_model: nn.Module,
    decoder_head_type: str = "linear",
    n_output_channels: int | None = None,
    crop_size: Sequence[int] = (EvalConfig.crop_size, EvalConfig.crop_size),
    stride: Sequence[int] = (EvalConfig.stride, EvalConfig.stride),
    num_max_forward: int = 1,
    windows_per_forward: int = 1,
) -> Tensor:
    """Averages, for every pixel, the scores of all windows that contain it.

    The scores of a linear head are logits, those of Mask2Former `semantic_scores`. A window whose sides are not
    multiples of the model's `size_multiple` is padded at the bottom and right, and its prediction is cropped (Meta's
    code fails in this case for Mask2Former, and drops the last rows and columns for a linear head). See `window_size`
    and `window_starts` for the positions of windows.

    Args:
        inputs: (B, 3, H, W) normalised images, of any size and on any device.
        segmentation_model: Has `predict(images, rescale_to)`, which returns logits (B, K, *rescale_to) of a linear
            head, or a dictionary with `pred_logits` and `pred_masks`, the latter at that size. May have
            `size_multiple`, the required divisor of input sides (default 32). It should be in evaluation mode.
        decoder_head_type: "linear" or "m2f".
        n_output_channels: K, to check the number of the model's classes; None: no check.
        crop_size: Height and width of a window.
        stride: Vertical and horizontal distance between windows; at most the size of a window.
        num_max_forward: Minimum number of forward passes. Surplus passes run on zeros, so that all processes of a
            sharded model, which exchange weights in every pass, run equally many.
        windows_per_forward: Maximum number of windows per forward pass.

    Returns:
        (B, K, H, W), at least float32.

    Raises:
        UsageError: The head is unknown, the windows leave gaps, or the model does not have `n_output_channels` classes.
    """
    _check_settings(decoder_head_type, crop_size, stride, windows_per_forward)
    height, width = window_size(inputs.shape[-2:], crop_size)
    rows = window_starts(inputs.shape[-2], height, stride[0])
    columns = window_starts(inputs.shape[-1], width, stride[1])
    corners = [(top, left) for top in rows for left in columns]
    groups = [corners[first : first + windows_per_forward] for first in range(0, len(corners), windows_per_forward)]
    device = _device_of(segmentation_model, default=inputs.device)
    total: Tensor | None = None
    for group in groups:
        windows = torch.cat([inputs[..., top : top + height, left : left + width] for top, left in group])
        scores = _window_scores(segmentation_model, windows.to(device), decoder_head_type)
        if total is None:
            total = _zeros_for(scores, inputs.shape, n_output_channels)
        for (top, left), part in zip(group, scores.split(len(inputs)), strict=True):
            total[..., top : top + height, left : left + width] += part.to(total.device)
    for _ in range(len(groups), num_max_forward):
        _window_scores(segmentation_model, torch.zeros_like(windows, device=device), decoder_head_type)
    total /= (_cover(inputs.shape[-2], height, rows)[:, None] * _cover(inputs.shape[-1], width, columns)).to(total)
    return total


def window_size(image_size: Sequence[int], crop_size: Sequence[int]) -> tuple[int, int]:
    """Height and width of the windows of an image.

    A side of the crop longer than the image's is reduced to it. If both are longer, windows are squares of the image's
    shorter side, as in Meta's code: the aspect ratio used in training.
    """
    if crop_size[0] > image_size[0] and crop_size[1] > image_size[1]:
        return (min(image_size), min(image_size))
    return (min(crop_size[0], image_size[0]), min(crop_size[1], image_size[1]))


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Start pixels, along one axis, of the fewest windows at distance `stride` that cover it.

    The last one is shifted back to end with the axis. If `window_size` made windows shorter than the stride, their own
    length is the stride, so that no pixel is missed.
    """
    stride = min(stride, window)
    count = -(-(length - window) // stride) + 1
    return [min(index * stride, length - window) for index in range(count)]


def _check_settings(
    decoder_head_type: str, crop_size: Sequence[int], stride: Sequence[int], windows_per_forward: int
) -> None:
    if decoder_head_type not in DECODERS:
        raise UsageError(f"The decoder head {decoder_head_type!r} is unknown; choose one of {', '.join(DECODERS)}.")
    if not all(1 <= step <= crop for step, crop in zip(stride, crop_size, strict=True)):
        raise UsageError(
            f"Windows of {tuple(crop_size)} pixels at distances of {tuple(stride)} do not cover an image; "
            "choose distances from 1 to the size of the window."
        )
    if windows_per_forward < 1:
        raise UsageError(f"{windows_per_forward} windows per forward pass were asked for; choose at least 1.")


def _window_scores(segmentation_model: nn.Module, windows: Tensor, decoder_head_type: str) -> Tensor:
    """(B, 3, h, w) to class scores (B, K, h, w), at least float32."""
    height, width = windows.shape[-2:]
    multiple = getattr(segmentation_model, "size_multiple", SIZE_MULTIPLE)
    # Zero is the mean colour, which also pads training crops.
    padded = functional.pad(windows, (0, -width % multiple, 0, -height % multiple))
    prediction = segmentation_model.predict(padded, rescale_to=tuple(padded.shape[-2:]))
    if decoder_head_type == "m2f":
        return semantic_scores(prediction["pred_logits"], prediction["pred_masks"][..., :height, :width])
    return prediction[..., :height, :width].to(torch.promote_types(prediction.dtype, torch.float32))


def _zeros_for(scores: Tensor, image_shape: Sequence[int], n_output_channels: int | None) -> Tensor:
    num_classes = scores.shape[1]
    if n_output_channels not in (None, num_classes):
        raise UsageError(
            f"The model has {num_classes} classes and {n_output_channels} were asked for; "
            f"set decoder_head.num_classes={num_classes}."
        )
    shape = (image_shape[0], num_classes, *image_shape[-2:])
    return torch.zeros(shape, dtype=scores.dtype, device=_device_with_room(shape, scores))


def _resize(scores: Tensor, size: Sequence[int]) -> Tensor:
    size = tuple(size)
    if size == tuple(scores.shape[-2:]):
        return scores
    scores = scores.to(_device_with_room((*scores.shape[:2], *size), scores))
    return functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _device_with_room(shape: Sequence[int], like: Tensor) -> torch.device:
    """The device of `like`, or the CPU for a tensor of this shape that is larger than `LARGEST_ON_DEVICE`."""
    num_bytes = torch.Size(shape).numel() * like.element_size()
    return like.device if num_bytes <= LARGEST_ON_DEVICE else torch.device("cpu")


def _device_of(segmentation_model: nn.Module, default: torch.device) -> torch.device:
    parameter = next(segmentation_model.parameters(), None)
    return default if parameter is None else parameter.device


def _cover(length: int, window: int, starts: Sequence[int]) -> Tensor:
    """Counts the windows that cover each pixel of an axis."""
    cover = torch.zeros(length)
    for start in starts:
        cover[start : start + window] += 1
    return cover

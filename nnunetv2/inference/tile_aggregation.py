"""Predict the tiles of an image and blend the predictions into one volume."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from nnunetv2.errors import NNUNetError
from nnunetv2.inference.sliding_window_prediction import Slicer
from nnunetv2.utilities.helpers import empty_cache

logger = logging.getLogger(__name__)

TilePredictor = Callable[[torch.Tensor], torch.Tensor]

# On the CPU torch uses a generic 3D convolution for a single small image and oneDNN for two, which is several times
# faster (measured: 4.5 times for 16 x 64 x 64 voxels, no gain from 32 x 64 x 64 on, little in 2D).
CPU_TILES_PER_FORWARD = 2
CPU_MAX_VOXELS_PER_FORWARD = 2**18


@dataclass(frozen=True)
class TileBlending:
    """Settings for predicting and blending tiles."""

    num_outputs: int
    """K, channels of a prediction"""
    weights: torch.Tensor | None
    """weight of each voxel, with the shape of a tile; None weights all voxels equally"""
    device: torch.device
    """device of the network"""
    tiles_per_forward: int = 1
    show_progress: bool = False


class NotFiniteError(NNUNetError, ArithmeticError):
    """The blended logits contain infinite values or NaN."""


def tiles_per_forward(tile_size: Sequence[int], device: torch.device) -> int:
    """Number of tiles per forward pass."""
    is_small = CPU_TILES_PER_FORWARD * math.prod(tile_size) < CPU_MAX_VOXELS_PER_FORWARD
    return CPU_TILES_PER_FORWARD if device.type == "cpu" and len(tile_size) == 3 and is_small else 1


@torch.inference_mode()
def predict_tiles(
    predict: TilePredictor,
    image: torch.Tensor,
    slicers: Sequence[Slicer],
    blending: TileBlending,
    results_device: torch.device,
) -> torch.Tensor:
    """Blend the predictions of overlapping tiles by a weighted mean.

    Args:
        predict: maps tiles (B, C, *tile) to logits (B, K, *tile).
        image: (C, *spatial).
        slicers: index expressions of the tiles; together they cover the image.
        results_device: device of image and sums during prediction.

    Returns:
        float16 logits (K, *spatial) on `results_device`. Half precision keeps large volumes in memory.

    Raises:
        NotFiniteError: a value is infinite or NaN.
    """
    image = image.to(results_device)
    sums = torch.zeros((blending.num_outputs, *image.shape[1:]), dtype=torch.half, device=results_device)
    total_weights = torch.zeros(image.shape[1:], dtype=torch.half, device=results_device)
    weights = 1 if blending.weights is None else blending.weights.to(results_device)
    disable = None if blending.show_progress else True  # for tqdm, None means: only on a terminal
    with tqdm(total=len(slicers), unit="tile", leave=False, disable=disable) as progress:
        for first in range(0, len(slicers), blending.tiles_per_forward):
            group = slicers[first : first + blending.tiles_per_forward]
            tiles = torch.stack([image[slicer] for slicer in group]).to(blending.device)
            for slicer, prediction in zip(group, predict(tiles).to(results_device), strict=True):
                sums[slicer] += prediction * weights
                total_weights[slicer[1:]] += weights
            progress.update(len(group))
    torch.div(sums, total_weights, out=sums)
    # Channel by channel, so that the mask takes the memory of one channel only.
    if not all(bool(torch.isfinite(channel).all()) for channel in sums):
        raise NotFiniteError(
            "The network's output has infinite values or NaN, or values above 65504, the largest that half precision "
            "can hold; the image or the weights are unusable, or the step size is so small that many tiles add up"
        )
    return sums


def predict_tiles_within_memory(
    predict: TilePredictor,
    image: torch.Tensor,
    slicers: Sequence[Slicer],
    blending: TileBlending,
    *,
    keep_on_device: bool,
) -> torch.Tensor:
    """Run `predict_tiles` with the sums on the network's device if requested and possible, else in main memory.

    Raises:
        NNUNetError: the device memory is too small even for the network alone.
        NotFiniteError: see `predict_tiles`.
    """
    if keep_on_device:
        try:
            return predict_tiles(predict, image, slicers, blending, blending.device)
        except torch.OutOfMemoryError:
            logger.warning(
                "An image of size %s does not fit into the memory of %s; keeping its logits in main memory instead",
                tuple(image.shape[1:]),
                blending.device,
            )
        empty_cache(blending.device)
    try:
        return predict_tiles(predict, image, slicers, blending, torch.device("cpu"))
    except torch.OutOfMemoryError as err:
        tile = " x ".join(str(voxels) for voxels in image[slicers[0]].shape[1:])
        raise NNUNetError(
            f"The memory of {blending.device} is too small for this network's tiles of {tile}; free it from other "
            f"processes, use a larger one, or predict with -device cpu"
        ) from err

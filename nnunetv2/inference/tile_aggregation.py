"""Predict the tiles of an image and blend the predictions into one volume."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from tqdm import tqdm

from nnunetv2.errors import NNUNetError
from nnunetv2.inference.forward_batches import largest_power_of_two
from nnunetv2.inference.sliding_window_prediction import Slicer
from nnunetv2.utilities.context_slices import context_of
from nnunetv2.utilities.helpers import empty_cache
from nnunetv2.utilities.out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

TilePredictor = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TileBlending:
    """Settings for predicting and blending tiles."""

    num_outputs: int
    """K, channels of a prediction"""
    weights: torch.Tensor | None
    """weight of each voxel, with the shape of a tile; None weights all voxels equally"""
    device: torch.device
    """device of the network"""
    tiles_per_forward: Callable[[torch.device], int] = lambda device: 1
    """the largest number of tiles to predict together on a device; asked before each group of tiles"""
    show_progress: bool = False
    context_slices: int = 1
    """so many slices, that of the tile in the middle, are channels of a 2-D tile"""


class NotFiniteError(NNUNetError, ArithmeticError):
    """The blended logits contain infinite values or NaN."""


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
        num_done = 0
        while num_done < len(slicers):
            num_left = len(slicers) - num_done
            together = largest_power_of_two(min(blending.tiles_per_forward(blending.device), num_left))
            group = slicers[num_done : num_done + together]
            tiles = torch.stack([_cut(image, slicer, blending.context_slices) for slicer in group]).to(blending.device)
            for slicer, prediction in zip(group, predict(tiles).to(results_device), strict=True):
                sums[slicer] += prediction * weights
                total_weights[slicer[1:]] += weights
            num_done += len(group)
            progress.update(len(group))
    torch.div(sums, total_weights, out=sums)
    # Channel by channel, so that the mask takes the memory of one channel only; read together, with one wait.
    if not bool(torch.stack([torch.isfinite(channel).all() for channel in sums]).all()):
        raise NotFiniteError(
            "The network's output has infinite values or NaN, or values above 65504, the largest that half precision "
            "can hold; the image or the weights are unusable, or the step size is so small that many tiles add up"
        )
    return sums


def _cut(image: torch.Tensor, slicer: Slicer, context_slices: int) -> torch.Tensor:
    """Cuts a tile (C, *tile); with context, (C * k, *tile) of a slice and those around it."""
    if context_slices == 1:
        return image[slicer]
    channels, number, *plane = slicer
    return image[(channels, context_of(number, context_slices, image.shape[1]), *plane)].flatten(0, 1)


def predict_tiles_within_memory(
    predict: TilePredictor,
    image: torch.Tensor,
    slicers: Sequence[Slicer],
    blending: TileBlending,
    *,
    keep_on_device: bool,
    place_network: Callable[[torch.device], object] = lambda device: None,
    free_memory: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """Run `predict_tiles`; when memory is used up, start again in ways that need less of it.

    In this order: everything on the network's device, if requested; image and sums in main memory; also the network on
    the CPU. On the CPU the second attempt only follows a garbage collection, and the last one predicts single tiles.

    Args:
        place_network: moves the network of `predict` to a device, that of the next tiles.
        free_memory: gives up what is kept on the device only to save time.

    Raises:
        NNUNetError: memory is too small for all of them.
        NotFiniteError: see `predict_tiles`.
    """
    error, where = None, blending.device
    for attempt in _attempts(blending, keep_on_device):
        if error is not None:
            free_memory()
            gc.collect()
            empty_cache(blending.device)
            size = tuple(image.shape[1:])
            logger.warning("The memory of %s does not suffice for an image of size %s; %s", where, size, attempt.how)
        try:
            place_network(attempt.blending.device)
            return predict_tiles(predict, image, slicers, attempt.blending, attempt.results_device)
        except (RuntimeError, MemoryError) as err:
            if not is_out_of_memory(err):
                raise
            # Without its traceback, whose frames would keep the tensors of the failed attempt alive.
            error, where = err.with_traceback(None), attempt.blending.device
    tile = " x ".join(str(voxels) for voxels in image[slicers[0]].shape[1:])
    devices = " and ".join(dict.fromkeys((str(blending.device), "cpu")))
    raise NNUNetError(
        f"The memory of {devices} is too small for this network's tiles of {tile} and an image of "
        f"{tuple(image.shape[1:])}; free it from other processes, or use a larger machine"
    ) from error


class _Attempt(NamedTuple):
    how: str
    blending: TileBlending
    results_device: torch.device


def _attempts(blending: TileBlending, keep_on_device: bool) -> Iterator[_Attempt]:
    cpu = torch.device("cpu")
    if keep_on_device:
        yield _Attempt("", blending, blending.device)
    yield _Attempt("keeping its logits in main memory instead", blending, cpu)
    if blending.device.type != "cpu":
        yield _Attempt("predicting it on the CPU, which is much slower", replace(blending, device=cpu), cpu)
        return
    yield _Attempt("trying once more", blending, cpu)
    yield _Attempt("predicting its tiles one by one", replace(blending, tiles_per_forward=lambda _: 1), cpu)

"""Random numbers of training as functions of the seed and of what they are for.

Nothing of a random state has to be saved: a run that is resumed draws what it would have drawn. The points of the loss
follow from the image alone, so that the number of processes does not change them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

ORDER_STREAM, AUGMENTATION_STREAM, POINTS_STREAM, STEP_STREAM = range(4)  # keep what is drawn apart


def mixed_seed(seed: int, *numbers: int) -> int:
    """A seed of 64 bits for every tuple of numbers from 0; neighbouring tuples have unrelated ones."""
    return int(np.random.SeedSequence((seed, *numbers)).generate_state(1, np.uint64)[0])


def generators_of_images(seed: int, positions: Iterable[int], device: torch.device) -> list[torch.Generator]:
    """A generator for the points of each image of a batch.

    Args:
        seed: Of the training.
        positions: Global number of the draw that each image is, see `batches.py`.
        device: Where the points are drawn.
    """
    return [
        torch.Generator(device).manual_seed(mixed_seed(seed, POINTS_STREAM, int(position))) for position in positions
    ]


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Sets torch's own generators, on all devices, for the dropout and the dropped paths of one step of a process."""
    torch.manual_seed(mixed_seed(seed, STEP_STREAM, iteration, rank))

"""Random numbers of training as a function of the seed and of their purpose.

No random state needs to be saved: a resumed run draws the same numbers as an uninterrupted one. The points of the loss
depend on the image only, so that they are independent of the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

ORDER_STREAM, AUGMENTATION_STREAM, POINTS_STREAM, STEP_STREAM = range(4)  # independent streams


def mixed_seed(seed: int, *numbers: int) -> int:
    """Derives a 64-bit seed for a tuple of non-negative numbers; neighbouring tuples have unrelated seeds."""
    return int(np.random.SeedSequence((seed, *numbers)).generate_state(1, np.uint64)[0])


def generators_of_images(seed: int, positions: Iterable[int], device: torch.device) -> list[torch.Generator]:
    """Creates a generator for the loss points of each image of a batch.

    Args:
        seed: Seed of the training.
        positions: Global position of each image's draw, see `batches.py`.
        device: Device on which points are drawn.
    """
    return [
        torch.Generator(device).manual_seed(mixed_seed(seed, POINTS_STREAM, int(position))) for position in positions
    ]


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seeds torch's generators on all devices for dropout and stochastic depth in one step of a process."""
    torch.manual_seed(mixed_seed(seed, STEP_STREAM, iteration, rank))

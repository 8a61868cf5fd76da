"""Random numbers of a training as functions of its seed and of what they are for.

Every sample of every batch has random numbers of its own: they follow from the seed, the number of the batch and the
place of the sample in it. So neither the number of background workers or processes changes what is drawn, nor does an
interruption, and no random state has to be saved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from dinov3.utils.processes import process_group

START_STREAM, TRAINING_STREAM, VALIDATION_STREAM, EPOCH_STREAM = range(4)  # keep what is drawn apart


class SampleStreams(NamedTuple):
    """The random numbers of the samples that one data loader makes."""

    seed: int
    """of the training"""
    stream: int
    """`TRAINING_STREAM` or `VALIDATION_STREAM`"""
    first_batch: int
    """number of the loader's first batch, counted from the start of the training"""
    first_sample: int
    """place of the loader's first sample in the batch that all processes make together"""


def sample_streams(
    seed: int | None, batch_size: int, epoch: int, batches_per_epoch: tuple[int, int]
) -> tuple[SampleStreams | None, SampleStreams | None]:
    """The random numbers of the training and validation batches of this process, from the first of an epoch on.

    All processes have to call it: their batches lie one behind the other in the batch that they make together.

    Args:
        seed: of the training; without one there are no streams.
        batch_size: samples per batch of this process.
        epoch: to start with, counted from 0.
        batches_per_epoch: of training and validation.
    """
    if seed is None:
        return None, None
    rank, _ = process_group.rank_and_world_size()
    first_sample = sum(process_group.gather(batch_size)[:rank])
    training, validation = (
        SampleStreams(seed, stream, epoch * number, first_sample)
        for stream, number in zip((TRAINING_STREAM, VALIDATION_STREAM), batches_per_epoch, strict=True)
    )
    return training, validation


def set_generators(seed: int, stream: int, number: int = 0, part: int = 0) -> None:
    """Sets the global generators of Python, numpy and torch, the latter on all devices.

    Args:
        seed: of the training.
        stream: what the numbers are for.
        number: of the batch or epoch.
        part: of it: the sample or the process.
    """
    for_python, for_numpy, for_torch = _seeds(seed, stream, number, part)
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


@contextmanager
def sample_generators(streams: SampleStreams, batch: int, sample: int) -> Iterator[None]:
    """Has the global generators of the CPU draw for one sample; afterwards they go on where they were.

    Args:
        batch: number of the batch, counted from the loader's first one.
        sample: place in the loader's batch.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = _seeds(streams.seed, streams.stream, streams.first_batch + batch, streams.first_sample + sample)
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would disturb the network's on the GPU
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seeds(*numbers: int) -> tuple[int, list[int], int]:
    """Unrelated seeds for Python, numpy and torch.

    They have to differ: Python's generator and numpy's are the same algorithm and would draw the same numbers.
    """
    words = [int(word) for word in np.random.SeedSequence(numbers).generate_state(6)]
    return words[0] << 32 | words[1], words[2:4], words[4] << 32 | words[5]

"""Random numbers of a training as a function of its seed and of their purpose.

Every sample has its own random numbers, derived from the seed, the batch number and the position in the batch. The
draws are therefore independent of the number of workers and processes and of interruptions, and no random state needs
to be saved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from dinov3.utils.processes import process_group

START_STREAM, TRAINING_STREAM, VALIDATION_STREAM, EPOCH_STREAM = range(4)  # independent streams


class SampleStreams(NamedTuple):
    """Random streams of the samples of one data loader."""

    seed: int
    """seed of the training"""
    stream: int
    """`TRAINING_STREAM` or `VALIDATION_STREAM`"""
    first_batch: int
    """number of the loader's first batch, counted from the start of the training"""
    first_sample: int
    """index of the loader's first sample in the global batch of all processes"""


def sample_streams(
    seed: int | None, batch_size: int, epoch: int, batches_per_epoch: tuple[int, int]
) -> tuple[SampleStreams | None, SampleStreams | None]:
    """Creates the random streams of this process for training and validation batches, starting at an epoch.

    All processes must call it: their batches are concatenated to the global batch.

    Args:
        seed: seed of the training; None: no streams.
        batch_size: samples per batch of this process.
        epoch: first epoch, counted from 0.
        batches_per_epoch: number of training and validation batches per epoch.
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
    """Seeds the global generators of Python, numpy and torch, the latter on all devices.

    Args:
        seed: seed of the training.
        stream: purpose of the random numbers.
        number: number of the batch or epoch.
        part: index of the sample or process within it.
    """
    for_python, for_numpy, for_torch = _seeds(seed, stream, number, part)
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


@contextmanager
def sample_generators(streams: SampleStreams, batch: int, sample: int) -> Iterator[None]:
    """Seeds the CPU's global generators for one sample and restores their state afterwards.

    Args:
        batch: number of the batch, counted from the loader's first one.
        sample: index in the loader's batch.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = _seeds(streams.seed, streams.stream, streams.first_batch + batch, streams.first_sample + sample)
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would also reset the GPU's
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seeds(*numbers: int) -> tuple[int, list[int], int]:
    """Derives independent seeds for Python, numpy and torch.

    They must differ: Python and numpy use the same algorithm and would otherwise draw the same numbers.
    """
    words = [int(word) for word in np.random.SeedSequence(numbers).generate_state(6)]
    return words[0] << 32 | words[1], words[2:4], words[4] << 32 | words[5]

"""What the seed of a training does: where random numbers start, which kernels compute, which seed a checkpoint has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.dataloading.augmenters import has_random_workers
from nnunetv2.training.dataloading.random_streams import EPOCH_STREAM, START_STREAM, set_generators
from nnunetv2.training.setup.seed_range import require_seed

_CUBLAS_SETTING = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may add up in another order each time


def start(seed: int | None) -> None:
    """Sets all generators for the weights that a network begins with; without a seed they stay as they are.

    Raises:
        UsageError: the seed is out of range.
    """
    require_seed(seed)
    if seed is not None:
        os.environ.setdefault(*_CUBLAS_SETTING)  # read when cuBLAS is first used
        set_generators(seed, START_STREAM)


def start_epoch(seed: int | None, epoch: int, rank: int) -> None:
    """Sets all generators for what this process draws in an epoch: dropout, dropped paths, points of a loss.

    Each epoch begins anew, so that one that is the first after an interruption draws the same.
    """
    if seed is not None:
        set_generators(seed, EPOCH_STREAM, epoch, rank)


@contextmanager
def deterministic_kernels(seed: int | None) -> Iterator[None]:
    """With a seed, has torch compute by algorithms that give the same bits each time, as far as it has such.

    Where it has none it warns. Without a seed the settings stay as they are.
    """
    if seed is None:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault(*_CUBLAS_SETTING)
    is_strict = before == (True, False)
    torch.use_deterministic_algorithms(True, warn_only=not is_strict)
    torch.backends.cudnn.benchmark = False  # chooses kernels by timing them
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def log_lines(seed: int | None, loaders: Sequence[object], trainer_name: str) -> list[str]:
    """What the log of a training says of its seed, and of batches that do not follow from it.

    Args:
        loaders: iterators over training and validation batches.
    """
    if seed is None:
        return []
    lines = [f"Seed {seed}: the same training again gives the same weights"]
    if any(map(has_random_workers, loaders)):
        lines.append(
            f"WARNING: {trainer_name} makes its batches in background processes of its own, which the seed "
            f"does not reach; with nnUNet_n_proc_DA=0 it makes them in this one"
        )
    return lines


def resumed_seed(own: int | None, stored: int | None, is_finished: bool, source: str) -> int | None:
    """The seed that a training resumes with: that of the training that a checkpoint is from.

    Args:
        own: seed that the command gave.
        stored: seed of the checkpoint; None where the training had none.
        is_finished: whether that training is complete; then nothing is drawn any more, and `own` is not looked at.
        source: where the checkpoint is from, for the message.

    Raises:
        UsageError: `own` is another seed.
    """
    if own not in (None, stored) and not is_finished:
        had = "without a seed" if stored is None else f"with seed {stored}"
        raise UsageError(
            f"The training in {source} was started {had} and cannot go on with seed {own}; leave out --seed, "
            f"or start a new training"
        )
    return stored

"""What the seed of a training does: where random numbers start, which kernels compute, which seed a checkpoint has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def report(trainer: Any) -> None:
    """Says in a trainer's log what its seed is, and if its batches do not follow from it."""
    if trainer.seed is None:
        return
    trainer.print_to_log_file(f"Seed {trainer.seed}: the same training again gives the same weights")
    if any(map(has_random_workers, (trainer.dataloader_train, trainer.dataloader_val))):
        trainer.print_to_log_file(
            f"WARNING: {type(trainer).__name__} makes its batches in background processes of its own, which the seed "
            f"does not reach; with nnUNet_n_proc_DA=0 it makes them in this one"
        )


def take_over(trainer: Any, stored: int | None, is_finished: bool, source: str) -> None:
    """Gives a trainer the seed of the training that a checkpoint is from.

    Args:
        stored: that seed; None where it had none.
        is_finished: whether that training is complete; then the trainer's own seed is for nothing, and not looked at.
        source: where the checkpoint is from, for the message.

    Raises:
        UsageError: the trainer has another seed already.
    """
    if trainer.seed not in (None, stored) and not is_finished:
        had = "without a seed" if stored is None else f"with seed {stored}"
        raise UsageError(
            f"The training in {source} was started {had} and cannot go on with seed {trainer.seed}; leave out --seed, "
            f"or start a new training"
        )
    trainer.seed = stored

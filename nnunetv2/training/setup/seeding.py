"""Seeding of a training: random generators, deterministic kernels, and the seed of a resumed training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from dinov3.utils.processes import process_group
from nnunetv2.errors import UsageError
from nnunetv2.training.dataloading.augmenters import has_random_workers
from nnunetv2.training.dataloading.random_streams import EPOCH_STREAM, START_STREAM, set_generators
from nnunetv2.training.setup.seed_range import LARGEST_SEED, require_seed

_CUBLAS_SETTING = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS may vary the order of summation


def start(seed: int | None, drawn_seed: int | None = None) -> None:
    """Seeds all generators for the initialisation of the network; does nothing without any seed.

    Args:
        drawn_seed: used without a seed; it does not ask for deterministic kernels.

    Raises:
        UsageError: the seed is out of range.
    """
    require_seed(seed)
    if seed is not None:
        os.environ.setdefault(*_CUBLAS_SETTING)  # cuBLAS reads it on first use
    if (used := drawn_seed if seed is None else seed) is not None:
        set_generators(used, START_STREAM)


def draw() -> int:
    """Draws a seed for a training that was given none, the same in all processes of a group.

    It comes from torch's generator: programs that seed that one themselves repeat their trainings as before.
    """
    return process_group.gather(int(torch.randint(LARGEST_SEED + 1, ())))[0]


def start_epoch(seed: int | None, epoch: int, rank: int) -> None:
    """Seeds all generators for the draws of this process in an epoch: dropout, stochastic depth, loss points.

    Each epoch is seeded separately, so that a resumed epoch draws the same numbers.
    """
    if seed is not None:
        set_generators(seed, EPOCH_STREAM, epoch, rank)


@contextmanager
def deterministic_kernels(seed: int | None) -> Iterator[None]:
    """With a seed, makes torch use deterministic algorithms; does nothing without a seed.

    Operations without a deterministic algorithm only warn.
    """
    if seed is None:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault(*_CUBLAS_SETTING)
    is_strict = before == (True, False)
    torch.use_deterministic_algorithms(True, warn_only=not is_strict)
    torch.backends.cudnn.benchmark = False  # selects kernels by timing, which varies
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def log_lines(
    seed: int | None, loaders: Sequence[object], trainer_name: str, drawn_seed: int | None = None
) -> list[str]:
    """Log lines about the seed, and about batches that it does not determine.

    Args:
        loaders: iterators over training and validation batches.
        drawn_seed: the seed that was drawn for a training without one.
    """
    if seed is None and (drawn_seed is None or any(map(has_random_workers, loaders))):
        return []
    if seed is None:
        return [f"Drawn seed {drawn_seed}: on the CPU, --seed {drawn_seed} repeats this training with the same weights"]
    lines = [f"Seed {seed}: the same training again gives the same weights"]
    if any(map(has_random_workers, loaders)):
        lines.append(
            f"WARNING: {trainer_name} makes its batches in background processes of its own, which the seed "
            f"does not reach; with nnUNet_n_proc_DA=0 it makes them in this one"
        )
    return lines


def order_lines(drawn_seed: int | None, loaders: Sequence[object]) -> list[str]:
    """Log lines after a training without a seed: whether the drawn one repeats it."""
    number = sum(getattr(loader, "num_out_of_order", 0) for loader in loaders)
    if drawn_seed is None or number == 0:
        return []
    return [
        f"{number} batches were used before an earlier one, for which a training without a seed does not wait: --seed "
        f"{drawn_seed} repeats this training with the same batches in another order"
    ]


def resumed_seed(own: int | None, stored: int | None, is_finished: bool, source: str) -> int | None:
    """Determines the seed of a resumed training: that of the checkpoint's training.

    Args:
        own: seed given by the command.
        stored: seed of the checkpoint; None: unseeded.
        is_finished: the training is complete; nothing is drawn any more, so `own` is ignored.
        source: name of the checkpoint for error messages.

    Raises:
        UsageError: `own` differs from the stored seed.
    """
    if own not in (None, stored) and not is_finished:
        had = "without a seed" if stored is None else f"with seed {stored}"
        raise UsageError(
            f"The training in {source} was started {had} and cannot go on with seed {own}; leave out --seed, "
            f"or start a new training"
        )
    return stored

"""Which numbers can be the seed of a training."""

from __future__ import annotations

import argparse

from nnunetv2.errors import UsageError

LARGEST_SEED = 2**32 - 1


def seed_of_command(text: str) -> int:
    """Type of the argument `--seed`."""
    try:
        seed = int(text)
        require_seed(seed)
    except ValueError as err:  # UsageError is one
        message = f"{text!r} is no seed; accepted are whole numbers from 0 to {LARGEST_SEED}"
        raise argparse.ArgumentTypeError(message) from err
    return seed


def require_seed(seed: int | None) -> None:
    """Refuses what is neither None, no seed, nor a whole number from 0 to `LARGEST_SEED`.

    Raises:
        UsageError: accordingly.
    """
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST_SEED):
        return
    raise UsageError(f"The seed is {seed!r}; accepted are whole numbers from 0 to {LARGEST_SEED}, or none")

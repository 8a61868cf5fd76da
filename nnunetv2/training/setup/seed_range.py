"""Validation of seeds."""

from __future__ import annotations

import argparse

from nnunetv2.errors import UsageError

LARGEST_SEED = 2**32 - 1


def seed_of_command(text: str) -> int:
    """Parses the argument `--seed`."""
    try:
        seed = int(text)
        require_seed(seed)
    except ValueError as err:  # UsageError derives from ValueError
        message = f"{text!r} is no seed; accepted are whole numbers from 0 to {LARGEST_SEED}"
        raise argparse.ArgumentTypeError(message) from err
    return seed


def require_seed(seed: int | None) -> None:
    """Rejects seeds other than None (unseeded) and whole numbers from 0 to `LARGEST_SEED`.

    Raises:
        UsageError: the seed is out of range or not a whole number.
    """
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= LARGEST_SEED):
        return
    raise UsageError(f"The seed is {seed!r}; accepted are whole numbers from 0 to {LARGEST_SEED}, or none")

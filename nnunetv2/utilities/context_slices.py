"""Slices with their neighbours: which slices of a case a 2-D network sees at once."""

from __future__ import annotations


def context_of(number: int, num_slices: int, depth: int) -> list[int]:
    """Numbers of the slices around one; beyond the ends of a case, its first or last slice is repeated.

    Args:
        number: of the middle slice, 0 to `depth` - 1.
        num_slices: how many, odd.
        depth: slices of the case.
    """
    reach = num_slices // 2
    return [min(max(number + step, 0), depth - 1) for step in range(-reach, reach + 1)]

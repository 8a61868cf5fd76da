"""The runs of a comparison by name, and what lies in the folders of their folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.comparison.scores import Run

_SHOWN = 4


def run_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """A name for each run: its method, and where that has several runs the seed, or else the number from 1."""
    counts = Counter(run.method for run in runs)
    return tuple(run.method if counts[run.method] == 1 else f"{run.method} ({_which(run)})" for run in runs)


def _which(run: Run) -> str:
    return f"run {run.number + 1}" if run.seed is None else f"seed {run.seed}"


def folds_of(run: Run) -> tuple[str, ...]:
    """The folds whose validations a run consists of, numbers in their order; none of a folder of predictions."""
    return tuple(sorted(set(run.fold_of.values()), key=fold_order))


def fold_order(fold: str) -> tuple[bool, int, str]:
    """Sorts folds by their numbers, and `all` behind them."""
    return (not fold.isdecimal(), int(fold) if fold.isdecimal() else 0, fold)


def fold_folder(run: Run, fold: str) -> Path:
    """Where the training of a fold left its files."""
    return run.folder / f"fold_{fold}"


def listed(entries: Sequence[str]) -> str:
    """The first few entries, and how many more there are."""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more

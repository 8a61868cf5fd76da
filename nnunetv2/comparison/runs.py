"""Names, folds and fold folders of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.comparison.scores import Run

_SHOWN = 4


def run_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Name each run by its method, plus seed or number (from 1) if the method has several runs."""
    counts = Counter(run.method for run in runs)
    return tuple(run.method if counts[run.method] == 1 else f"{run.method} ({_which(run)})" for run in runs)


def _which(run: Run) -> str:
    return f"run {run.number + 1}" if run.seed is None else f"seed {run.seed}"


def folds_of(run: Run) -> tuple[str, ...]:
    """Folds whose validations a run consists of, in numerical order; empty for a folder of predictions."""
    return tuple(sorted(set(run.fold_of.values()), key=fold_order))


def fold_order(fold: str) -> tuple[bool, int, str]:
    """Sort key for folds: by number, `all` last."""
    return (not fold.isdecimal(), int(fold) if fold.isdecimal() else 0, fold)


def fold_folder(run: Run, fold: str) -> Path:
    """Folder with the training files of a fold."""
    return run.folder / f"fold_{fold}"


def listed(entries: Sequence[str]) -> str:
    """Join the first few entries and count the rest."""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more

"""Read the epochs of trained folds from metrics.jsonl, or from the text log, the only one that upstream writes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.comparison.protocol_sources import FoldSources
from nnunetv2.comparison.results import LearningCurve
from nnunetv2.comparison.runs import fold_folder, folds_of, run_names
from nnunetv2.comparison.scores import Run
from nnunetv2.training.logging.metric_lines import EPOCH

_LOGS = "training_log_*.txt"
_NUMPY_NUMBER = re.compile(r"(?:np\.)?float\d+\(([^()]*)\)")
_ENTRIES = {  # lines of an epoch in the text log
    "epoch": re.compile(r": Epoch (\d+)\s*$"),
    "val_loss": re.compile(r": val_loss:? (\S+)\s*$"),
    "dice": re.compile(r": Pseudo dice \[(.*)\]\s*$"),
    "seconds": re.compile(r": Epoch time: ([\d.]+) s"),
}


@dataclass(frozen=True)
class EpochRecord:
    """Measurements of one epoch; NaN where not measured or unknown."""

    epoch: int
    pseudo_dice: float
    val_loss: float
    seconds: float
    """of the whole epoch"""
    train_seconds: float = math.nan
    """of its training steps"""
    world_size: int | None = None
    peak_memory_mib: float = math.nan


def epochs_of_fold(sources: FoldSources) -> tuple[EpochRecord, ...]:
    """Read the epochs of a fold in order, without duplicates; empty if there is no log."""
    lines = [line for line in sources.lines if line["type"] == EPOCH]
    kept: list[EpochRecord] = []
    for record in map(_from_metrics, lines) if lines else _from_text(sources):
        while kept and kept[-1].epoch >= record.epoch:  # repeated after a resume, or left by an earlier training
            kept.pop()
        kept.append(record)
    return tuple(kept)


def learning_curves(runs: Sequence[Run]) -> tuple[LearningCurve, ...]:
    """Curves of all folds of all runs that have a log."""
    curves = []
    for run, name in zip(runs, run_names(runs), strict=True):
        for fold in folds_of(run):
            records = epochs_of_fold(FoldSources(fold_folder(run, fold)))
            if records:
                curves.append(
                    LearningCurve(
                        method=run.method,
                        run=name,
                        fold=fold,
                        epochs=tuple(record.epoch for record in records),
                        pseudo_dice=tuple(record.pseudo_dice for record in records),
                        val_loss=tuple(record.val_loss for record in records),
                    )
                )
    return tuple(curves)


def _from_metrics(line: dict[str, Any]) -> EpochRecord:
    return EpochRecord(
        epoch=line["epoch"],
        pseudo_dice=_number(line.get("mean_fg_dice")),
        val_loss=_number(line.get("val_loss")),
        seconds=_number(line.get("seconds")),
        train_seconds=_number(line.get("train_seconds")),
        world_size=line.get("world_size"),
        peak_memory_mib=_number(line.get("peak_gpu_memory_mib")),
    )


def _from_text(sources: FoldSources) -> Iterator[EpochRecord]:
    is_alone = sources.debug.get("is_ddp") == "False"  # with DDP, the log does not record the number of processes
    for path in sorted(sources.folder.glob(_LOGS), key=_started):
        values: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            for name, pattern in _ENTRIES.items():
                if found := pattern.search(line):
                    values = {name: found[1]} if name == "epoch" else {**values, name: found[1]}
            if {"epoch", "seconds"} <= values.keys():  # a completed epoch logs its duration last
                yield _from_words(values, 1 if is_alone else None)
                values = {}


def _started(path: Path) -> list[int]:
    """Sort key from the date in the file name, whose parts are not zero-padded."""
    return list(map(int, re.findall(r"\d+", path.name)))


def _from_words(values: dict[str, str], world_size: int | None) -> EpochRecord:
    words = _NUMPY_NUMBER.sub(r"\1", values.get("dice", "")).split(",")
    dice = [number for number in map(_number, words) if not math.isnan(number)]
    return EpochRecord(
        epoch=int(values["epoch"]),
        pseudo_dice=sum(dice) / len(dice) if dice else math.nan,
        val_loss=_number(values.get("val_loss")),
        seconds=_number(values["seconds"]),
        world_size=world_size,
    )


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan

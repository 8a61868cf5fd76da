"""`metrics.jsonl` and `metrics.csv`: metrics of a training, one line per epoch, for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import replace_when_complete, without_nonfinite
from nnunetv2.errors import DataError
from nnunetv2.training.logging.metric_lines import EPOCH, RUN, VALIDATION, read_metrics

_log = logging.getLogger(__name__)

JSONL = "metrics.jsonl"
CSV = "metrics.csv"
Line = Mapping[str, Any]


class MetricFiles:
    """The two files of one fold, written by one process.

    The files stay consistent with the checkpoints next to them. After its first epoch, a training replaces the lines of
    this and all later epochs and describes itself in a line of type `run`: a new training overwrites everything, a
    resumed one continues after its checkpoint. From then on, lines are only appended.

    If the files cannot be written temporarily, the training continues and adds the missing lines later.

    Args:
        folder: folder of the fold; created if missing.
        describe_run: returns the content of the line of type `run`; called at the first epoch.
    """

    def __init__(self, folder: str | os.PathLike, describe_run: Callable[[], Line]) -> None:
        self._jsonl, self._csv = Path(folder) / JSONL, Path(folder) / CSV
        self._describe_run = describe_run
        self._unwritten: list[Line] = []
        self._has_begun = False  # this run has written an epoch
        self._columns: list[str] = []  # of the table; empty while it must be rewritten

    def add_epoch(self, epoch: int, values: Line) -> None:
        """Adds the metrics of an epoch; nan and infinity become null, because JSON lacks both."""
        if not self._has_begun and not any(line["type"] == RUN for line in self._unwritten):
            self._unwritten.append({"type": RUN, "first_epoch": epoch, **self._describe_run()})
        self._add({"type": EPOCH, "epoch": epoch, **values})

    def add_validation(self, values: Line) -> None:
        """Adds the scores of the final validation."""
        self._add({"type": VALIDATION, **values})

    def _add(self, line: Line) -> None:
        self._unwritten.append(line)
        try:
            self._write()
        except (OSError, DataError) as err:
            _log.warning("The metrics could not be written (%s); the training goes on and retries later", err)

    def _write(self) -> None:
        text = "".join(map(_as_text, self._unwritten))
        epochs = [line for line in self._unwritten if line["type"] == EPOCH]
        if self._has_begun:
            _append(self._jsonl, text)
        else:
            self._jsonl.parent.mkdir(parents=True, exist_ok=True)
            kept = self._lines_before(epochs[0]["epoch"] if epochs else None)
            with replace_when_complete(self._jsonl) as temporary:
                temporary.write_text("".join(map(_as_text, kept)) + text, encoding="utf-8")
        self._unwritten.clear()
        if epochs:
            self._has_begun = True
            self._extend_table([_as_row(line) for line in epochs])

    def _lines_before(self, epoch: int | None) -> list[dict[str, Any]]:
        """Returns the lines before the first one of this or a later epoch; None keeps all.

        A damaged file is set aside: a training is worth more than its metrics.
        """
        if epoch == 0:
            return []
        try:
            lines = read_metrics(self._jsonl)
        except DataError as err:
            aside = self._jsonl.with_name(f"{JSONL}.damaged")
            os.replace(self._jsonl, aside)
            _log.warning("%s. The file is kept as %s, and metrics are recorded from here on", err, aside)
            return []
        return lines if epoch is None else list(itertools.takewhile(lambda line: _first_epoch(line) < epoch, lines))

    def _extend_table(self, rows: Sequence[Line]) -> None:
        # If writing fails below, the empty columns make the next call rebuild the table from the JSON lines.
        known, self._columns = self._columns, []
        if all(name in known for row in rows for name in row):
            _append(self._csv, _as_csv(rows, known))
        else:
            rows = [_as_row(line) for line in read_metrics(self._jsonl) if line["type"] == EPOCH]
            known = list(dict.fromkeys(name for row in rows for name in row))
            header = _as_csv([{name: name for name in known}], known)
            with replace_when_complete(self._csv) as temporary:
                temporary.write_text(header + _as_csv(rows, known), encoding="utf-8")
        self._columns = known


def _first_epoch(line: Line) -> int:
    return line.get("epoch" if line["type"] == EPOCH else "first_epoch") or 0


def _as_text(line: Line) -> str:
    return json.dumps(without_nonfinite(line), allow_nan=False, default=str, ensure_ascii=False) + "\n"


def _as_row(line: Line) -> dict[str, Any]:
    """Cells of an epoch by column name; composite values are expanded to one column per entry."""
    row: dict[str, Any] = {}
    for name, value in without_nonfinite(line).items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{part}": entry for part, entry in value.items()}
        elif isinstance(value, list):
            row |= {f"{name}_{number}": entry for number, entry in enumerate(value)}
        elif name != "type":
            row[name] = value
    return row


def _as_csv(rows: Iterable[Line], columns: Sequence[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _append(path: Path, text: str) -> None:
    """Appends by a single write, so that a killed process leaves no partial line; reverts a short write."""
    with open(path, "ab", buffering=0) as file:
        size, data = file.tell(), text.encode("utf-8")
        try:
            if file.write(data) != len(data):
                raise OSError(f"there is no space left for {path}")
        except OSError:
            file.truncate(size)
            raise

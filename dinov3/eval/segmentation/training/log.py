"""Log of a running training: text lines, and the same numbers as JSON."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dinov3.utils.atomic_files import replace_when_complete, without_nonfinite
from dinov3.utils.processes.process_group import is_distributed

logger = logging.getLogger(__name__)

TRAINING_LOG = "training_log.jsonl"


class LossAverages:
    """Averages the losses of several steps on the device; copies them to the host only on request.

    Steps with a non-finite total are excluded.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Adds one step; names must be the same in every step and include `loss`."""
        self._names = list(losses)
        total = losses["loss"].detach()
        values = torch.stack([*(value.detach() for value in losses.values()), torch.ones_like(total)])
        counted = torch.where(total.isfinite(), values, 0.0)
        self._sums = counted if self._sums is None else self._sums + counted

    def pop(self) -> dict[str, float]:
        """Returns the averages over the steps of all processes since the last call; nan if there were none."""
        if self._sums is None:
            return {}
        sums, self._sums = self._sums, None
        if is_distributed():
            dist.all_reduce(sums)
        *totals, count = sums.tolist()
        return {name: total / count if count else math.nan for name, total in zip(self._names, totals, strict=True)}


class TrainingLog:
    """Writes the lines of one process.

    Args:
        path: JSON lines file; None for processes that write nothing.
        total_iter: Iterations of the whole run.
        iteration: Completed iterations; lines of later ones, left by an interrupted training, are removed.
    """

    def __init__(self, path: Path | None, total_iter: int, iteration: int = 0) -> None:
        self.path, self.total_iter = path, total_iter
        self._last, self._since = iteration, time.monotonic()
        if path is not None:
            _keep_lines_until(path, iteration)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the block from the time per step."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - begun

    def step(self, iteration: int, losses: Mapping[str, float], lr: Mapping[str, float], gradient_norm: float) -> None:
        """Reports the steps since the last report."""
        now = time.monotonic()
        seconds = (now - self._since) / max(1, iteration - self._last)
        left = seconds * (self.total_iter - iteration)
        self._last, self._since = iteration, now
        if self.path is None:
            return
        terms = " ".join(f"{name} {value:.4f}" for name, value in losses.items() if not name[-1].isdigit())
        logger.info(
            "[%d/%d] %s lr %.3g gradient norm %.3g, %.3f s per iteration, %s left",
            iteration, self.total_iter, terms, next(iter(lr.values())), gradient_norm, seconds,
            timedelta(seconds=round(left)),
        )  # fmt: skip
        line = {"iteration": iteration, "losses": dict(losses), "lr": dict(lr), "gradient_norm": gradient_norm}
        self._append({**line, "seconds_per_iteration": seconds, "seconds_left": left})

    def evaluation(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Reports an evaluation, without per-class values."""
        if self.path is not None:
            shown = {name: value for name, value in metrics.items() if name != "classes"}
            self._append({"iteration": iteration, "metrics": shown})

    def _append(self, content: Mapping[str, Any]) -> None:
        line = json.dumps(without_nonfinite(content), allow_nan=False) + "\n"
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as err:  # a full disk, a lost network folder
            logger.warning("A line of %s is lost (%s); the training goes on", self.path, err)


def _keep_lines_until(path: Path, iteration: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] <= iteration:
                kept.append(f"{line}\n")
        except (ValueError, KeyError, TypeError):  # a truncated line of a process that was killed while writing
            continue
    with replace_when_complete(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")

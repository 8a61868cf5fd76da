"""Read the records of a trained fold: metrics.jsonl, debug.json and plans.json, including folds of upstream nnU-Net."""

from __future__ import annotations

import ast
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import NNUNetError
from nnunetv2.training.logging.metric_files import JSONL
from nnunetv2.training.logging.metric_lines import RUN, VALIDATION, read_metrics
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_log = logging.getLogger(__name__)

_WRAPPED = re.compile(r"\w+\((\{.*\})\)", re.DOTALL)  # ConfigurationManager({...})


@dataclass(frozen=True)
class FoldSources:
    """Files of one fold; each is empty if missing or unreadable."""

    folder: Path
    """fold_N in a model folder"""

    @property
    def model_folder(self) -> Path:
        return self.folder.parent

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """Records of metrics.jsonl; empty for upstream's trainings, which do not write it.

        Raises:
            DataError: the file is damaged.
        """
        path = self.folder / JSONL
        return read_metrics(path) if path.is_file() else []

    @cached_property
    def run_line(self) -> dict[str, Any]:
        """Last record of type `run`; every resume adds one."""
        return self._last(RUN)

    @cached_property
    def validation_line(self) -> dict[str, Any]:
        """Last record of type `validation`, which belongs to the predictions on disk."""
        return self._last(VALIDATION)

    def _last(self, kind: str) -> dict[str, Any]:
        return next((line for line in reversed(self.lines) if line["type"] == kind), {})

    @cached_property
    def debug(self) -> dict[str, Any]:
        """Content of debug.json: attributes of the trainer as text."""
        return _read(self.folder / "debug.json")

    def debug_value(self, name: str) -> Any:
        """Parse an entry of debug.json as plain data; None if it is missing or anything else."""
        return literal(self.debug.get(name))

    @cached_property
    def plans(self) -> dict[str, Any]:
        """Plans of the training; without debug.json, those of the model folder."""
        found = self.debug_value("plans_manager")
        return found if isinstance(found, dict) else _read(self.model_folder / "plans.json")

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Configuration of the training, inheritance resolved."""
        found = self.debug_value("configuration_manager")
        if isinstance(found, dict):
            return found
        name = self.model_folder.resolve().name.rpartition("__")[2]
        try:
            return PlansManager(self.plans).get_configuration(name).configuration
        except NNUNetError:
            return {}

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """Dataset description used in the training."""
        found = self.debug_value("dataset_json")
        return found if isinstance(found, dict) else _read(self.model_folder / "dataset.json")


def recorded_seed(fold_folder: Path) -> int | None:
    """Seed of a training; None if it had none or none is recorded."""
    sources = FoldSources(fold_folder)
    seed = sources.run_line.get("seed", sources.debug_value("seed"))
    return seed if isinstance(seed, int) else None


def literal(text: object) -> Any:
    """Parse a text as plain data, also if wrapped as `ClassName({...})`; None if it is not plain data."""
    if not isinstance(text, str):
        return None
    wrapped = _WRAPPED.fullmatch(text.strip())
    try:
        return ast.literal_eval(wrapped[1] if wrapped else text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except NNUNetError as err:
        _log.warning("%s; its content counts as not recorded", err)
        return {}
    return content if isinstance(content, dict) else {}

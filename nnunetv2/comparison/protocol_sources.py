"""What the files of a trained fold tell about it: metrics.jsonl, debug.json, plans.json; also upstream's files."""

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
from nnunetv2.training.logging.metric_files import JSONL, RUN, VALIDATION, read_metrics
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_log = logging.getLogger(__name__)

_WRAPPED = re.compile(r"\w+\((\{.*\})\)", re.DOTALL)  # ConfigurationManager({...})


@dataclass(frozen=True)
class FoldSources:
    """The files of one fold; each is empty where it is missing or cannot be read."""

    folder: Path
    """fold_N of a model folder"""

    @property
    def model_folder(self) -> Path:
        return self.folder.parent

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """Of metrics.jsonl, which trainings have since it exists; upstream's have none."""
        path = self.folder / JSONL
        return read_metrics(path) if path.is_file() else []

    @cached_property
    def run_line(self) -> dict[str, Any]:
        """The last of type `run`: a training that was resumed has several."""
        return self._last(RUN)

    @cached_property
    def validation_line(self) -> dict[str, Any]:
        """The last of type `validation`: the predictions at hand are from it."""
        return self._last(VALIDATION)

    def _last(self, kind: str) -> dict[str, Any]:
        return next((line for line in reversed(self.lines) if line["type"] == kind), {})

    @cached_property
    def debug(self) -> dict[str, Any]:
        """The content of debug.json: attributes of the trainer as text."""
        return _read(self.folder / "debug.json")

    def debug_value(self, name: str) -> Any:
        """The plain data that debug.json has as text; None if it has none, or something else."""
        return literal(self.debug.get(name))

    @cached_property
    def plans(self) -> dict[str, Any]:
        """The plans of the training; of a fold without debug.json those of the model folder."""
        found = self.debug_value("plans_manager")
        return found if isinstance(found, dict) else _read(self.model_folder / "plans.json")

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The configuration of the training, with what it inherits."""
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
        """The description of the dataset that the training saw."""
        found = self.debug_value("dataset_json")
        return found if isinstance(found, dict) else _read(self.model_folder / "dataset.json")


def recorded_seed(fold_folder: Path) -> int | None:
    """The seed of a training; None if it had none or does not tell."""
    sources = FoldSources(fold_folder)
    seed = sources.run_line.get("seed", sources.debug_value("seed"))
    return seed if isinstance(seed, int) else None


def literal(text: object) -> Any:
    """The plain data that a text stands for, also within the name of its class; None if it is not plain."""
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
        _log.warning("%s; what it would tell counts as not recorded", err)
        return {}
    return content if isinstance(content, dict) else {}

"""The trainings of a study and their progress, read from their files only."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import NNUNetError, UsageError
from nnunetv2.training.logging.metric_files import JSONL
from nnunetv2.training.logging.metric_lines import EPOCH, read_metrics
from nnunetv2.training.state.checkpoint import BEST, FINAL, LATEST, PREVIOUS

if TYPE_CHECKING:
    from nnunetv2.study.methods import Method
    from nnunetv2.study.study_config import StudyConfig

_ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_extTrainer", "nnUNet_extensions")


class State(Enum):
    """Progress of a training; values are shown to users."""

    NEW = "not started"
    CUT_OFF = "interrupted"
    TRAINED = "trained, not validated"
    DONE = "finished"


_FLAGS = {State.NEW: (), State.CUT_OFF: ("--c",), State.TRAINED: ("--val",)}


@dataclass(frozen=True)
class Job:
    """One training: a method, a seed and a fold. Plain data, so it can be sent to other machines."""

    method: str
    seed: int
    fold: int | str
    program: str
    module: str
    words: tuple[str, ...]
    start_words: tuple[str, ...]
    num_epochs: int
    study_folder: Path
    model_folder: Path
    working_folder: Path
    """base of relative paths in the words"""
    environment: Mapping[str, str]
    """variables to set or override in the training process"""

    @property
    def name(self) -> str:
        return f"{self.method}, seed {self.seed}, fold {self.fold}"

    @property
    def results(self) -> Path:
        """`nnUNet_results` of the training."""
        return results_folder(self.study_folder, self.method, self.seed)

    @property
    def fold_folder(self) -> Path:
        return self.model_folder / f"fold_{self.fold}"

    @property
    def log(self) -> Path:
        return self.study_folder / "logs" / f"{self._file_name}.log"

    @property
    def lock(self) -> Path:
        """Folder that is locked by the study that runs this training."""
        return self.study_folder / "locks" / self._file_name

    @property
    def _file_name(self) -> str:
        return f"{self.method}__seed_{self.seed}__fold_{self.fold}"

    def state(self) -> State:
        """Determine the progress from the files on disk."""
        if (self.fold_folder / FINAL).is_file():
            return State.DONE if _is_validated(self.fold_folder / "validation") else State.TRAINED
        is_begun = any((self.fold_folder / name).is_file() for name in (LATEST, PREVIOUS, BEST))
        return State.CUT_OFF if is_begun else State.NEW

    def command_words(self, state: State) -> list[str]:
        """Arguments of the training command for an unfinished training."""
        return [*self.words, *(self.start_words if state is State.NEW else ()), *_FLAGS[state]]

    def command_line(self, state: State) -> str:
        """The command as typed in a shell, including the variables that it needs."""
        variables = {"nnUNet_results": str(self.results), **self.environment}
        assignments = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        return " ".join([*assignments, self.program, shlex.join(self.command_words(state))])

    def full_environment(self) -> dict[str, str]:
        """Environment of the training process; roots become absolute, since its working folder differs."""
        variables = {**os.environ, **self.environment, "nnUNet_results": str(self.results), "PYTHONUNBUFFERED": "1"}
        for name in _ROOTS:
            if variables.get(name):
                folders = variables[name].split(os.pathsep)
                variables[name] = os.pathsep.join(os.path.abspath(folder) for folder in folders if folder)
        return variables

    def epoch_seconds(self) -> list[float]:
        """Durations of the recorded epochs."""
        lines = read_metrics(self.fold_folder / JSONL)
        return [line["seconds"] for line in lines if line["type"] == EPOCH and line.get("seconds") is not None]


def _is_validated(folder: Path) -> bool:
    """True if scores exist together with every segmentation they were computed from."""
    try:
        cases = dict(read_json(folder / "summary.json")).get("metric_per_case", [])
        names = [Path(case["prediction_file"]).name for case in cases]
    except (NNUNetError, OSError, TypeError, ValueError, KeyError):  # missing, or truncated by a full disk
        return False
    return all((folder / name).is_file() for name in names)


def results_folder(study_folder: Path, method: str, seed: int) -> Path:
    """`nnUNet_results` of the trainings of a method with one seed."""
    return study_folder / "trainings" / method / f"seed_{seed}"


def jobs_of(
    config: StudyConfig, methods: tuple[Method, ...], dataset: str, study_folder: Path, base: Path
) -> tuple[Job, ...]:
    """Create all trainings in the order seed, fold, method.

    A study that is stopped early has thus trained all methods about equally often.
    """
    common = ["-device", config.device, *(["-num_gpus", str(config.num_gpus)] if config.num_gpus > 1 else [])]
    common += [word for name, value in config.budget.given().items() for word in (f"--{name}", str(value))]
    _require_free_variables(config.environment)
    return tuple(
        Job(
            method=method.name,
            seed=seed,
            fold=fold,
            program=method.program,
            module=method.module,
            words=(
                dataset, method.configuration, str(fold), *method.words, "-tr", method.trainer, "-p", method.plans,
                *common, "--seed", str(seed),
            ),
            start_words=method.start_words,
            num_epochs=method.num_epochs,
            study_folder=study_folder,
            model_folder=results_folder(study_folder, method.name, seed) / dataset / method.model_folder,
            working_folder=base,
            environment=dict(config.environment),
        )
        for seed in config.seeds
        for fold in config.folds
        for method in methods
    )  # fmt: skip


def _require_free_variables(environment: Mapping[str, str]) -> None:
    if "nnUNet_results" in environment:
        raise UsageError("environment has nnUNet_results, which the study chooses itself; leave it out, or set output")

"""The study file: models, folds, seeds, budget, and the settings of the comparison."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from dinov3.utils.config_layers import checked_value, nearest
from dinov3.utils.yaml_config import load_config, require_range
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import UsageError
from nnunetv2.training.setup.budget import Budget
from nnunetv2.training.setup.seed_range import require_seed

DEVICES = ("cuda", "cpu", "mps")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class ModelSection:
    """One method of a study."""

    trainer: str = "nnUNetTrainer"
    """Class name of the trainer; selects the training command."""
    plans: str | None = None
    """Name of the plans; null uses those of the study."""
    configuration: str | None = None
    """Configuration in the plans; null uses that of the study."""
    config: str | None = None
    """Settings file, for trainers of vision transformers."""
    settings: dict[str, Any] | list[str] = field(default_factory=dict)
    """Settings that override the file: `model.backbone: dinov2`, or a list of key=value arguments."""
    pretrained_weights: str | None = None
    """Checkpoint of the same architecture with the initial weights."""


@dataclass(frozen=True)
class CompareSection(CompareSettings):
    """Settings of the comparison, see nnUNetv2_compare."""

    allow: tuple[str, ...] = ()
    """Items that may differ between the models, at the cost of a less fair comparison."""
    fov: str | None = None
    """Folder with a field of view per case; what lies outside of it is ignored."""
    reader: str | None = None
    """[NAME=]FOLDER with the segmentations of a second human reader, whose agreement is shown beside the models."""

    def settings(self) -> CompareSettings:
        """The settings of the comparison proper, without what may differ and without folders."""
        return CompareSettings(**{each.name: getattr(self, each.name) for each in fields(CompareSettings)})


@dataclass(frozen=True)
class SlurmSection:
    """Resources that each training requests from Slurm."""

    partition: str | None = None
    """Partition; null uses the cluster's default."""
    gpus: int = 1
    """GPUs per training, all on one machine."""
    cpus: int = 12
    """CPU cores per training."""
    memory: float | None = None
    """Main memory in GiB; null uses the cluster's default."""
    time: float = 24.0
    """Time limit in hours, after which a training is interrupted and requeued."""
    array_parallelism: int = 8
    """Maximum number of concurrent trainings."""
    max_requeues: int = 50
    """How often a training is requeued after a timeout."""
    setup: tuple[str, ...] = ()
    """Shell commands that prepare a node, such as `module load cuda`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Additional sbatch options by name: {account: x, qos: y}."""

    def __post_init__(self) -> None:
        require_range("slurm.gpus", self.gpus, 0)
        for name in ("cpus", "array_parallelism", "max_requeues"):
            require_range(f"slurm.{name}", getattr(self, name), 1)
        for name in ("time", "memory"):
            if getattr(self, name) is not None:
                require_range(f"slurm.{name}", getattr(self, name), 0.05)


@dataclass(frozen=True)
class StudyConfig:
    """Settings of a study."""

    dataset: str = ""
    """Number or name of a preprocessed dataset."""
    configuration: str = "2d"
    """Configuration in the plans."""
    plans: str = "nnUNetPlans"
    """Name of the plans."""
    folds: tuple[int | str, ...] = (0, 1, 2, 3, 4)
    """Folds of the cross-validation to train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each model is trained once per seed; conclusions about methods, rather than single models, need three seeds."""
    device: str = "cuda"
    """cuda, cpu or mps."""
    num_gpus: int = 1
    """GPUs per training."""
    output: str | None = None
    """Folder for trainings, logs and the comparison; null uses a folder beside this file, named after it."""
    budget: Budget = field(default_factory=Budget)
    models: dict[str, Any] = field(default_factory=dict)
    """Methods by name; the names appear in the report."""
    compare: CompareSection = field(default_factory=CompareSection)
    slurm: SlurmSection = field(default_factory=SlurmSection)
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables for the trainings."""

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UsageError("dataset is missing; give the number or name of a preprocessed dataset")
        if self.device not in DEVICES:
            raise UsageError(f"device is {self.device!r}; accepted are {', '.join(DEVICES)}")
        require_range("num_gpus", self.num_gpus, 1)
        for name in ("folds", "seeds"):
            _require_different(name, getattr(self, name))
        for fold in self.folds:
            if fold != "all" and (not isinstance(fold, int) or fold < 0):
                raise UsageError(f"folds has {fold!r}; accepted are 0, 1, 2, ... and all")
        for seed in self.seeds:
            require_seed(seed)
        if not self.models:
            raise UsageError("models is missing; name at least one: `models: {unet: {trainer: nnUNetTrainer}}`")
        baseline = self.compare.baseline
        if baseline is not None and baseline not in self.models:
            raise UsageError(f"compare.baseline is {baseline!r}; the models are {', '.join(self.models)}")

    def sections(self) -> dict[str, ModelSection]:
        """Parse the models by name.

        Raises:
            UsageError: a name that cannot be a folder name, an unknown key, or a value of the wrong type.
        """
        lower = [name.lower() for name in self.models]
        for name in self.models:
            if not _NAME.fullmatch(name) or name.endswith(".") or lower.count(name.lower()) > 1:
                raise UsageError(
                    f"models.{name}: names become folders; give each one of its own, also without regard to case, of "
                    f"letters, digits, '-', '_' and '.', beginning with a letter or digit"
                )
        return {name: _model_section(f"models.{name}", values) for name, values in self.models.items()}


def load_study(path: str | os.PathLike) -> StudyConfig:
    """Read and validate a study file; accesses no other file.

    Raises:
        UsageError: the file is missing or not YAML, or a key or value is invalid.
    """
    config = load_config(StudyConfig, path)
    config.sections()
    return config


def study_folder(config: StudyConfig, path: str | os.PathLike) -> Path:
    """Absolute path of the study's folder: `output`, else `STUDY` for the file `STUDY.yaml`.

    Raises:
        UsageError: the file name has no suffix to strip.
    """
    path = Path(path).absolute()
    if config.output is not None:
        return (path.parent / config.output).absolute()
    if not path.suffix:
        raise UsageError(f"{path} has no ending; call it {path.name}.yaml, or set output to a folder")
    return path.with_suffix("")


def _require_different(name: str, values: tuple) -> None:
    if not values or len(set(values)) != len(values):
        raise UsageError(f"{name} is {list(values)}; give at least one, and none twice")


def _model_section(where: str, values: Any) -> ModelSection:
    if values is None:
        return ModelSection()
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} is {values!r}; give `key: value` pairs such as {{trainer: nnUNetTrainer}}")
    hints = get_type_hints(ModelSection)
    for key in values:
        if key not in hints:
            raise UsageError(f"{where}: there is no setting {key!r}{nearest(str(key), tuple(hints))}")
    return ModelSection(**{key: checked_value(hints[key], value, f"{where}.{key}") for key, value in values.items()})

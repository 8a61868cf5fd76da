"""Resolve the models of a study to their training commands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dinov3.utils.atomic_files import read_json
from dinov3.utils.visible_files import visible_files
from dinov3.utils.yaml_config import dotted_items, plain_config
from nnunetv2.comparison.protocol import FoldProtocol
from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.run.trainer_setup import make_trainer
from nnunetv2.study.planned_protocol import planned_protocol
from nnunetv2.study.study_config import ModelSection, StudyConfig
from nnunetv2.training.dataloading.splits import NUM_FOLDS, SPLITS_FILE
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.presets import settings_file
from nnunetv2.utilities.splits_file import read_or_generate_splits
from nnunetv2.utilities.training_commands import command_of_trainer, settings_arguments

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Method:
    """A validated model of a study."""

    name: str
    trainer: str
    plans: str
    configuration: str
    program: str
    """console command that trains it"""
    module: str
    """module of that command"""
    config_flag: str | None
    """flag of the command for a settings file"""
    config_path: str | None
    settings: tuple[str, ...]
    """`key=value` arguments"""
    start_words: tuple[str, ...]
    """arguments for starting, but not for resuming, a training"""
    num_epochs: int
    num_iterations_per_epoch: int
    batch_size: int
    patch_size: tuple[int, ...]
    protocol: FoldProtocol
    """conditions that its trainings will record and that must match across methods"""
    definition: Mapping[str, Any]
    """everything that determines its weights, as JSON data"""

    @property
    def words(self) -> tuple[str, ...]:
        """Settings as arguments of the command."""
        return (*([] if self.config_path is None else [self.config_flag, self.config_path]), *self.settings)

    def trainer_arguments(self) -> dict[str, Any]:
        """Constructor arguments of the trainer for these settings."""
        return settings_arguments(find_by_name("trainer", self.trainer), self.config_path, self.settings)

    @property
    def model_folder(self) -> str:
        """Name of the model folder, the parent of its folds."""
        return f"{self.trainer}__{self.plans}__{self.configuration}"


def resolve_methods(config: StudyConfig, dataset: str, base: Path) -> tuple[Method, ...]:
    """Resolve and validate the models of a study without training; writes nothing.

    Args:
        dataset: name of the dataset folder.
        base: base of relative paths.

    Raises:
        UsageError: unknown plans, configuration, fold, trainer, file or setting, or settings that conflict with the
            budget.
    """
    _require_folds(config, dataset)
    methods = []
    for name, section in config.sections().items():
        try:
            methods.append(_resolve(name, section, config, dataset, base))
        except UsageError as err:
            raise UsageError(f"models.{name}: {err}") from err
    return tuple(methods)


def _resolve(name: str, section: ModelSection, config: StudyConfig, dataset: str, base: Path) -> Method:
    plans, configuration = section.plans or config.plans, section.configuration or config.configuration
    trainer_class = find_by_name("trainer", section.trainer)
    command, settings = command_of_trainer(trainer_class), settings_words(section.settings)
    if command.prefix is None and (settings or section.config):
        raise UsageError(f"{section.trainer} takes no settings; leave out config and settings")
    named = section.config
    if named is not None and not (base / named).exists():
        named = settings_file(str(named), command.prefix)
    path = _existing(named, "config", base)
    weights = _existing(section.pretrained_weights, "pretrained_weights", base)
    arguments = settings_arguments(trainer_class, path, settings)
    trainer = make_trainer(
        trainer_class, dataset, configuration, config.folds[0], plans, device=_CPU, trainer_kwargs=arguments
    )
    given: dict[str, Any] = {}
    if command.prefix is not None:
        _existing(trainer.config.model.checkpoint, "model.checkpoint", base)
        loaded, sources = trainer_class.config_class.load(path, settings)
        values = dotted_items(loaded)
        given = {key: values[key] for key, source in sources.items() if source.rank > 0 and key in values}
    trainer.keep_to_budget(config.budget)
    manager = trainer.configuration_manager
    return Method(
        name=name,
        trainer=section.trainer,
        plans=plans,
        configuration=configuration,
        program=command.program,
        module=command.module,
        config_flag=command.config_flag,
        config_path=path,
        settings=tuple(settings),
        start_words=() if weights is None else ("-pretrained_weights", weights),
        num_epochs=trainer.num_epochs,
        num_iterations_per_epoch=trainer.num_iterations_per_epoch,
        batch_size=manager.batch_size,
        patch_size=tuple(manager.patch_size),
        protocol=planned_protocol(trainer, str(config.folds[0]), config.device),
        definition={
            "trainer": section.trainer,
            "plans": plans,
            "configuration": configuration,
            "pretrained_weights": weights,
            "budget": config.budget.given(),
            "settings": plain_config(given),
        },
    )


def settings_words(settings: Mapping[str, Any] | list[str]) -> list[str]:
    """Convert settings to `key=value` arguments; mappings may be nested or use dotted names."""
    if not isinstance(settings, Mapping):
        return list(settings)
    return [f"{key}={_as_text(value)}" for key, value in dotted_items(dict(settings)).items()]


def _as_text(value: Any) -> str:
    """Format a value as one line of YAML that parses back to it."""
    import yaml

    if isinstance(value, str):
        try:
            is_plain = yaml.safe_load(value) == value
        except yaml.YAMLError:
            is_plain = False
        if is_plain:
            return value
    return json.dumps(value, ensure_ascii=False)


def _existing(path: str | os.PathLike | None, key: str, base: Path) -> str | None:
    if path is None:
        return None
    found = (base / path).absolute()
    if not found.exists():
        raise UsageError(f"{key}: {found} does not exist; relative paths start from the folder of the study's file")
    return str(found)


def validated_cases(config: StudyConfig, dataset: str) -> list[str]:
    """Cases that the folds of a study validate, sorted.

    Raises:
        DataError: the dataset is not preprocessed, or its splits are damaged.
    """
    folder = Path(nnUNet_preprocessed) / dataset
    references = folder / "gt_segmentations"
    ending = read_dataset_json(folder / "dataset.json", trained=True)["file_ending"]
    cases = [path.name.removesuffix(ending) for path in visible_files(references, ending)]
    if "all" in config.folds:
        return sorted(cases)
    splits = read_or_generate_splits(folder, cases)
    return sorted({case for fold in config.folds for case in splits[fold]["val"]})


def _require_folds(config: StudyConfig, dataset: str) -> None:
    path = Path(nnUNet_preprocessed) / dataset / SPLITS_FILE
    splits = read_json(path) if path.is_file() else [None] * NUM_FOLDS
    missing = [fold for fold in config.folds if fold != "all" and fold not in range(len(splits))]
    if missing:
        raise UsageError(f"folds has {missing[0]}; {dataset} has the folds 0 to {len(splits) - 1}, and all")

"""The commands that train: which one takes the settings of a trainer, and which one trained a fold."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATH, _OVERRIDES = "config_path", "overrides"


@dataclass(frozen=True)
class TrainingCommand:
    """A console command."""

    program: str
    """Its name."""
    module: str
    """Dotted name of the module behind it."""
    prefix: str | None
    """`m2f_` stands for the flag `--m2f_config`, the file `m2f_config.yaml` in the folder of a fold, and the trainer's
    arguments `m2f_config_path` and `m2f_overrides`; None: there are no settings."""

    @property
    def config_flag(self) -> str | None:
        """The flag that takes a file of settings."""
        return None if self.prefix is None else f"--{self.prefix}config"


WITHOUT_SETTINGS = TrainingCommand("nnUNetv2_train", "nnunetv2.run.run_training", None)
WITH_SETTINGS = (
    TrainingCommand("nnUNetv2_train_m2f", "nnunetv2.run.run_training_m2f", "m2f_"),
    TrainingCommand("nnUNetv2_train_segformer", "nnunetv2.run.run_training_segformer", "segformer_"),
    TrainingCommand(
        "nnUNetv2_train_nodeepsupervision_mymodel", "nnunetv2.run.run_training_nodeepsupervision_mymodel", "vit_"
    ),
    TrainingCommand("nnUNetv2_train_vit", "nnunetv2.run.run_training_vit", ""),
)


def programs_with_settings() -> str:
    """Their names, for a message."""
    *names, last = (command.program for command in WITH_SETTINGS)
    return f"{', '.join(names)} and {last}"


def command_of_trainer(trainer_class: type) -> TrainingCommand:
    """The command that gives a trainer its settings; `nnUNetv2_train` for one that takes none."""
    prefix = settings_prefix(trainer_class)
    return next((command for command in WITH_SETTINGS if command.prefix == prefix), WITHOUT_SETTINGS)


def command_of_model(model_folder: Path) -> tuple[TrainingCommand, Path | None]:
    """The command that trained the folds of a model, and the settings of one of them, if they have settings."""
    for command in WITH_SETTINGS:
        for settings in sorted(model_folder.glob(f"fold_*/{command.prefix}config.yaml")):
            return command, settings
    return WITHOUT_SETTINGS, None


def settings_prefix(trainer_class: type) -> str | None:
    """`m2f_` for a trainer with the arguments `m2f_config_path` and `m2f_overrides`; None for one without settings."""
    parameters = inspect.signature(trainer_class.__init__).parameters
    prefixes = [name.removesuffix(_PATH) for name in parameters if name.endswith(_PATH)]
    return next((prefix for prefix in prefixes if f"{prefix}{_OVERRIDES}" in parameters), None)


def settings_arguments(trainer_class: type, config_path: str | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments that give a trainer its settings; none if it takes none."""
    prefix = settings_prefix(trainer_class)
    return {} if prefix is None else {f"{prefix}{_PATH}": config_path, f"{prefix}{_OVERRIDES}": list(overrides)}

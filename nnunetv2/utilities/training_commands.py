"""Training commands: which one passes settings to a trainer, and which one trained a model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATH, _OVERRIDES = "config_path", "overrides"


@dataclass(frozen=True)
class TrainingCommand:
    """A console command that trains."""

    program: str
    """Name of the command."""
    module: str
    """Dotted name of its module."""
    prefix: str | None
    """`m2f_` implies the flag `--m2f_config`, the file `m2f_config.yaml` in a fold's folder, and the trainer arguments
    `m2f_config_path` and `m2f_overrides`; None if the command takes no settings."""

    @property
    def config_flag(self) -> str | None:
        """Flag for a settings file."""
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
    """Names of the commands with settings, for messages."""
    *names, last = (command.program for command in WITH_SETTINGS)
    return f"{', '.join(names)} and {last}"


def command_of_trainer(trainer_class: type) -> TrainingCommand:
    """Command that passes settings to a trainer; `nnUNetv2_train` for a trainer without settings."""
    prefix = settings_prefix(trainer_class)
    return next((command for command in WITH_SETTINGS if command.prefix == prefix), WITHOUT_SETTINGS)


def command_of_model(model_folder: Path) -> tuple[TrainingCommand, Path | None]:
    """Command that trained the folds of a model, and the settings file of the first one, if any."""
    for command in WITH_SETTINGS:
        for settings in sorted(model_folder.glob(f"fold_*/{command.prefix}config.yaml")):
            return command, settings
    return WITHOUT_SETTINGS, None


def settings_prefix(trainer_class: type) -> str | None:
    """`m2f_` for a trainer with the arguments `m2f_config_path` and `m2f_overrides`; None if it takes no settings."""
    parameters = inspect.signature(trainer_class.__init__).parameters
    prefixes = [name.removesuffix(_PATH) for name in parameters if name.endswith(_PATH)]
    return next((prefix for prefix in prefixes if f"{prefix}{_OVERRIDES}" in parameters), None)


def settings_arguments(trainer_class: type, config_path: str | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Arguments that pass settings to a trainer; empty if it takes none."""
    prefix = settings_prefix(trainer_class)
    return {} if prefix is None else {f"{prefix}{_PATH}": config_path, f"{prefix}{_OVERRIDES}": list(overrides)}

"""Training commands of vision transformers: nnU-Net's, with a settings file and `key=value` words."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.run import run_training as base
from nnunetv2.run import vit_settings
from nnunetv2.utilities import extensions, presets
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.plans_handling.plans_files import name_of_models

if TYPE_CHECKING:
    import torch

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
    from nnunetv2.training.nnUNetTrainer.vit_config import ViTnnUNetConfig

_NUM_ARGUMENTS = 3  # dataset, configuration, fold
_CHOICES = ("model.head", "training.loss")  # settings that determine the schema


@dataclass(frozen=True)
class ViTCommand:
    """One training command, and its Python interface."""

    program: str
    """Name of the console command."""
    model: str
    """Description of the model for the help text."""
    default_trainer: str
    """Class name of the trainer."""
    prefix: str
    """Prefix of flag and trainer arguments: `m2f_` gives `--m2f_config`, `m2f_config_path` and `m2f_overrides`."""
    settings: str
    """Dotted name of the default trainer's settings dataclass; its module must not import torch."""
    lists_heads: bool = False
    """The head is selected by `model.head`, and the help lists all heads."""

    @property
    def config_file(self) -> str:
        """Name of the settings file in the folder of a fold."""
        return f"{self.prefix}config.yaml"

    @property
    def config_flag(self) -> str:
        """The flag for a settings file."""
        return f"--{self.prefix}config"

    def get_trainer_from_args(
        self,
        dataset_name_or_id: int | str,
        configuration: str,
        fold: int | str,
        trainer_name: str | None = None,
        plans_identifier: str = base.DEFAULT_PLANS,
        continue_training: bool = False,
        device: torch.device | None = None,
        config_path: str | None = None,
        overrides: Sequence[str] = (),
    ) -> nnUNetTrainer_vit:
        """Creates the trainer, see `nnunetv2.run.run_training.get_trainer_from_args`.

        Args:
            config_path: settings file or preset; None: the fold's own settings if it is resumed, else the defaults.
            overrides: `key=value` words that override the file.
        """
        trainer_name = trainer_name or self.default_trainer
        arguments = (dataset_name_or_id, configuration, fold, trainer_name, plans_identifier)
        settings = self.trainer_arguments(*arguments, continue_training, config_path, overrides)
        return base.get_trainer_from_args(*arguments, continue_training, device, settings)

    def run_training(
        self,
        dataset_name_or_id: int | str,
        configuration: str,
        fold: int | str,
        trainer_class_name: str | None = None,
        plans_identifier: str = base.DEFAULT_PLANS,
        *,
        continue_training: bool = False,
        only_run_validation: bool = False,
        config_path: str | None = None,
        overrides: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Trains one fold and validates it, see `nnunetv2.run.run_training.run_training`.

        Args:
            config_path: settings file or preset; None: the fold's own settings if it is resumed or only validated,
                else the defaults.
            overrides: `key=value` words that override the file.
            options: further arguments of that function.
        """
        trainer = trainer_class_name or self.default_trainer
        arguments = (dataset_name_or_id, configuration, fold, trainer, plans_identifier)
        is_trained = continue_training or only_run_validation
        base.run_training(
            *arguments,
            continue_training=continue_training,
            only_run_validation=only_run_validation,
            trainer_kwargs=self.trainer_arguments(*arguments, is_trained, config_path, overrides),
            **options,
        )

    def build_parser(self) -> argparse.ArgumentParser:
        """Builds the parser; call `parse_intermixed_args`, because settings may follow flags."""
        parser = argparse.ArgumentParser(
            prog=self.program,
            description=f"Train {self.model} on one fold of a configuration and validate it.",
            epilog=self._epilog(),
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return self.add_arguments(parser)

    def _epilog(self) -> str:
        stored = "The folder of a fold keeps its settings, so that --c and --val need no file."
        if not self.lists_heads:
            file = f"nnunetv2/configs/{self.prefix}default.yaml"
            return textwrap.fill(f"Settings and their defaults: {file}, and --print_config. {stored}")
        lines = [f"  {name:<18}{summary}" for name, summary in extensions.summaries("head").items()]
        text = f"Settings and their defaults: --init_config FILE model.head=NAME, and --print_config. {stored}"
        return "\n".join(["heads (model.head=NAME):", *lines, "", textwrap.fill(text)])

    def add_arguments(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Adds the arguments of the command; returns the parser."""
        base.add_training_arguments(parser, self.default_trainer)
        names = presets.preset_names(self.prefix)
        preset = f", or a preset: {', '.join(names)}" if names else ""
        parser.add_argument(
            self.config_flag,
            dest="config_path",
            metavar="FILE",
            default=None,
            help=f"YAML file of settings{preset} (default: the defaults)",
        )
        vit_settings.add_settings_flags(parser)
        parser.add_argument(
            "settings", nargs="*", default=[], metavar="key=value", help="settings that override the file: lora.r=16"
        )
        return parser

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Executes a command line."""
        argv = list(sys.argv[1:] if argv is None else argv)
        if vit_settings.is_about_settings(argv):
            self._show_settings(argv)
            return
        args = vit_settings.parse(self.build_parser(), argv, self.schema())
        arguments = (args.dataset_name_or_id, args.configuration, args.fold, args.tr, args.p)
        settings = self.trainer_arguments(*arguments, args.c or args.val, args.config_path, args.settings)
        # The trainer reads the settings again; reading them here reports mistakes before torch is imported.
        self.schema(args.tr).load(*settings.values())
        base.run_from_arguments(args, trainer_kwargs=settings)

    def _show_settings(self, argv: Sequence[str]) -> None:
        """Executes `--print_config` and `--init_config`.

        Raises:
            UsageError: settings are invalid, or the file already exists.
        """
        from dinov3.utils.config_layers import dotted_keys

        parser = self.add_arguments(vit_settings.WordsParser(prog=self.program, allow_abbrev=False))
        args = vit_settings.parse(parser, argv, self.schema())
        if args.init_config is not None:
            self._write_template(args)
            return
        number = next((i for i, word in enumerate(args.words[:_NUM_ARGUMENTS]) if "=" in word), _NUM_ARGUMENTS)
        arguments, words = args.words[:number], args.words[number:]
        known = set(dotted_keys(self.schema()))
        if typo := next((word for word in arguments if re.split("[:=]", word)[0] in known), None):
            raise UsageError(
                f"{typo!r} stands where the dataset does; settings are written key=value, such as lora.r=16"
            )
        is_trained = args.c or args.val
        if is_trained and len(arguments) < _NUM_ARGUMENTS:
            raise UsageError("--c and --val take the settings of a fold; give dataset, configuration and fold too")
        path = None if args.config_path is None else presets.settings_file(args.config_path, self.prefix)
        if is_trained and path is None:
            path = str(self.fold_folder(*arguments, args.tr, args.p) / self.config_file)
            if not Path(path).is_file():
                raise UsageError(f"{path} does not exist; leave out --c and --val, or give the file of settings")
        title = f"Settings of {args.tr}, each with its source."
        sys.stdout.write(vit_settings.settings_text(self.schema(args.tr), title, path, words))

    def _write_template(self, args: argparse.Namespace) -> None:
        choices = [word for word in args.words if word.partition("=")[0] in _CHOICES] if self.lists_heads else []
        if args.print_config or args.config_path or len(choices) < len(args.words):
            beside = f" or with {' and '.join(f'{key}=NAME' for key in _CHOICES)}" if self.lists_heads else ""
            raise UsageError(f"--init_config writes the defaults and goes alone{beside}; change them in the file")
        schema = self.schema().resolved(None, choices)
        vit_settings.write_new_file(Path(args.init_config), vit_settings.template(self.program, schema))
        sys.stdout.write(
            f"Wrote all settings with their defaults to {args.init_config}; use it by {self.config_flag} "
            f"{args.init_config}\n"
        )

    def schema(self, trainer_name: str | None = None) -> type[ViTnnUNetConfig]:
        """Returns the settings dataclass of a trainer; None: the default trainer.

        Raises:
            UsageError: the trainer is unknown, or does not accept the settings of this command.
        """
        if trainer_name in (None, self.default_trainer):
            module, _, name = self.settings.rpartition(".")
            return getattr(importlib.import_module(module), name)
        return self._trainer_class(trainer_name).config_class

    def _trainer_class(self, name: str) -> type[nnUNetTrainer_vit]:
        trainer = find_by_name("trainer", name)
        if f"{self.prefix}config_path" not in inspect.signature(trainer.__init__).parameters:
            raise UsageError(
                f"-tr {name} does not take the settings of {self.program}, which trains {self.default_trainer} and "
                f"trainers derived from it; leave out -tr, or train {name} by nnUNetv2_train -tr {name}"
            )
        return trainer

    def trainer_arguments(
        self,
        dataset_name_or_id: int | str,
        configuration: str,
        fold: int | str,
        trainer_name: str,
        plans_identifier: str,
        is_trained: bool,
        config_path: str | None,
        overrides: Sequence[str],
    ) -> dict[str, Any]:
        """Returns the trainer's arguments; without a file, a fold that `is_trained` uses its own settings."""
        if trainer_name != self.default_trainer:
            self._trainer_class(trainer_name)
        if config_path is not None:
            config_path = presets.settings_file(config_path, self.prefix)
        elif is_trained:
            folder = self.fold_folder(dataset_name_or_id, configuration, fold, trainer_name, plans_identifier)
            stored = vit_settings.settings_of_fold(folder, self.config_file)
            config_path = None if stored is None else str(stored)
        return {f"{self.prefix}config_path": config_path, f"{self.prefix}overrides": list(overrides)}

    @staticmethod
    def fold_folder(
        dataset_name_or_id: int | str, configuration: str, fold: int | str, trainer_name: str, plans_identifier: str
    ) -> Path:
        """Returns the folder of a fold."""
        from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
        from nnunetv2.utilities.file_path_utilities import get_output_folder

        dataset, name = maybe_convert_to_dataset_name(dataset_name_or_id), plans_identifier
        if nnUNet_preprocessed.is_set():
            name = name_of_models(Path(nnUNet_preprocessed) / dataset, plans_identifier)
        return Path(get_output_folder(dataset, trainer_name, name, configuration, fold))

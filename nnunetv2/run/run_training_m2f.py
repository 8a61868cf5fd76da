"""The training command for DINOv3 + Mask2Former: nnU-Net's, with a file of settings and `key=value` words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.run import run_training as base
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.utilities.command_line import command

if TYPE_CHECKING:
    import torch

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

__all__ = ["get_trainer_from_args", "maybe_load_checkpoint", "run_training", "run_training_entry"]

DEFAULT_TRAINER = "nnUNetTrainer_m2f"


def get_trainer_from_args(
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    trainer_name: str = DEFAULT_TRAINER,
    plans_identifier: str = base.DEFAULT_PLANS,
    continue_training: bool = False,
    device: torch.device | None = None,
    m2f_config_path: str | None = None,
    m2f_overrides: Sequence[str] = (),
) -> nnUNetTrainer:
    """Makes the trainer, see `nnunetv2.run.run_training.get_trainer_from_args`.

    Args:
        m2f_config_path: file of settings; None: those the fold was trained with if it continues, else the defaults.
        m2f_overrides: `key=value` words that go before the file.
    """
    arguments = (dataset_name_or_id, configuration, fold, trainer_name, plans_identifier)
    settings = _settings(*arguments, continue_training, m2f_config_path, m2f_overrides)
    return base.get_trainer_from_args(*arguments, continue_training, device, settings)


def run_training(
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    trainer_class_name: str = DEFAULT_TRAINER,
    plans_identifier: str = base.DEFAULT_PLANS,
    *,
    continue_training: bool = False,
    only_run_validation: bool = False,
    m2f_config_path: str | None = None,
    m2f_overrides: Sequence[str] = (),
    **options: Any,
) -> None:
    """Trains one fold and validates it, see `nnunetv2.run.run_training.run_training`.

    Args:
        m2f_config_path: file of settings; None: those that the fold was trained with where it continues or is only
            validated, else the defaults.
        m2f_overrides: `key=value` words that go before the file.
        options: the other arguments of that function.
    """
    arguments = (dataset_name_or_id, configuration, fold, trainer_class_name, plans_identifier)
    is_trained = continue_training or only_run_validation
    base.run_training(
        *arguments,
        continue_training=continue_training,
        only_run_validation=only_run_validation,
        trainer_kwargs=_settings(*arguments, is_trained, m2f_config_path, m2f_overrides),
        **options,
    )


def build_parser() -> argparse.ArgumentParser:
    """Parser of `nnUNetv2_train_m2f`; use its `parse_intermixed_args`, as settings may stand behind flags."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_train_m2f",
        description="Train DINOv3 + Mask2Former on one fold of a 2-D configuration and validate it.",
        epilog="Settings and their defaults: nnunetv2/configs/m2f_default.yaml. The folder of a fold keeps its "
        "settings, so that --c and --val need no file.",
        allow_abbrev=False,
    )
    base.add_training_arguments(parser, DEFAULT_TRAINER)
    parser.add_argument(
        "--m2f_config", metavar="FILE", default=None, help="YAML file of settings (default: the defaults)"
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings that go before the file, for example lora.r=16"
    )
    return parser


@command
def run_training_entry(argv: Sequence[str] | None = None) -> None:
    """Console command `nnUNetv2_train_m2f`."""
    args = build_parser().parse_intermixed_args(argv)
    settings = _settings(
        args.dataset_name_or_id,
        args.configuration,
        args.fold,
        args.tr,
        args.p,
        args.c or args.val,
        args.m2f_config,
        args.settings,
    )
    base.run_from_arguments(args, trainer_kwargs=settings)


def _settings(
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    trainer_name: str,
    plans_identifier: str,
    is_trained: bool,
    m2f_config_path: str | None,
    m2f_overrides: Sequence[str],
) -> dict[str, Any]:
    """The trainer's arguments; for a fold that `is_trained` already its own settings are the file if none is given."""
    if m2f_config_path is None and is_trained:
        from nnunetv2.training.nnUNetTrainer.m2f_config import M2FnnUNetConfig
        from nnunetv2.utilities.file_path_utilities import get_output_folder

        folder = get_output_folder(dataset_name_or_id, trainer_name, plans_identifier, configuration, fold)
        stored = Path(folder) / M2FnnUNetConfig.file_name
        m2f_config_path = str(stored) if stored.is_file() else None
    return {"m2f_config_path": m2f_config_path, "m2f_overrides": list(m2f_overrides)}


if __name__ == "__main__":
    sys.exit(run_training_entry())

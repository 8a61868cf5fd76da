"""The request of one training command, as plain data and as command line arguments."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunetv2.errors import UsageError
from nnunetv2.training.setup.budget import PRECISIONS, Budget
from nnunetv2.training.setup.seed_range import require_seed, seed_of_command
from nnunetv2.utilities.crossval_split import SplitRule, add_split_arguments

DEFAULT_TRAINER = "nnUNetTrainer"
DEFAULT_PLANS = "nnUNetPlans"
AUGMENTATION_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class TrainingRun:
    """The request of one training command; plain data, so that it can be sent to other processes."""

    dataset: str | int
    configuration: str
    fold: int | str
    trainer_name: str = DEFAULT_TRAINER
    plans_identifier: str = DEFAULT_PLANS
    pretrained_weights: str | None = None
    save_probabilities: bool = False
    continue_training: bool = False
    allow_config_change: bool = False
    """continue also if plans, cases, labels or settings have changed"""
    only_validate: bool = False
    disable_checkpointing: bool = False
    validate_best: bool = False
    fast_dev_run: bool = False
    device_type: str = "cuda"
    augmentation_device: str = "cpu"
    """cpu or cuda"""
    trainer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """constructor arguments that the trainer has in addition to those of nnUNetTrainer"""
    seed: int | None = None
    """None: taken from the trainer or the resumed checkpoint"""
    split_rule: SplitRule = field(default_factory=SplitRule)
    budget: Budget = field(default_factory=Budget)
    """unset fields are taken from the trainer or the resumed checkpoint"""

    def __post_init__(self) -> None:
        if self.continue_training and self.only_validate:
            raise UsageError("--c continues training and --val only validates; give one of them")
        if self.continue_training and self.pretrained_weights is not None:
            raise UsageError(
                "-pretrained_weights is for the start of a training and --c continues one; give one of them"
            )
        if self.allow_config_change and not self.continue_training:
            raise UsageError("--allow_config_change is for trainings that --c continues; give both, or none of them")
        if self.validate_best and self.disable_checkpointing:
            raise UsageError("--val_best needs the checkpoint that --disable_checkpointing does not write")
        if self.augmentation_device not in AUGMENTATION_DEVICES:
            accepted = " or ".join(AUGMENTATION_DEVICES)
            raise UsageError(f"-augmentation_device is {self.augmentation_device!r}; it must be {accepted}")
        if self.augmentation_device == "cuda" and self.device_type != "cuda":
            raise UsageError(
                f"-augmentation_device cuda augments on the GPU that trains, but -device is {self.device_type}; "
                f"leave it out, or train with -device cuda"
            )
        require_seed(self.seed)
        if self.fast_dev_run:
            self._refuse_what_a_fast_dev_run_cannot_try()

    def _refuse_what_a_fast_dev_run_cannot_try(self) -> None:
        wishes = {
            "--c": self.continue_training,
            "--val": self.only_validate,
            "--val_best": self.validate_best,
            "--disable_checkpointing": self.disable_checkpointing,
        }
        refused = [flag for flag, is_given in wishes.items() if is_given]
        if refused:
            raise UsageError(
                f"--fast_dev_run starts a training of its own in a temporary folder and predicts with its last "
                f"checkpoint; leave out {' and '.join(refused)}"
            )


def parse_fold(fold: int | str) -> int | str:
    """Parses a fold: a number from 0, or `all`.

    Raises:
        UsageError: the value is neither.
    """
    if fold == "all":
        return fold
    try:
        number = int(fold)
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"fold is {fold!r}; accepted are 0, 1, 2, ... and all")
    return number


def add_training_arguments(parser: argparse.ArgumentParser, default_trainer: str = DEFAULT_TRAINER) -> None:
    """Adds the arguments that all training commands share; `run_from_arguments` runs the parsed result."""
    parser.usage = "%(prog)s dataset_name_or_id configuration fold [options]"
    add = parser.add_argument
    add("dataset_name_or_id", type=str, help="number or name of a preprocessed dataset")
    add("configuration", type=str, help="configuration in the plans, for example 2d or 3d_fullres")
    add("fold", type=str, help="fold of the cross-validation, 0 to 4 by default, or all to train on every case")
    add("-tr", type=str, default=default_trainer, help="class name of the trainer (default: %(default)s)")
    add("-p", type=str, default=DEFAULT_PLANS, help="name of the plans (default: %(default)s)")
    add("-pretrained_weights", type=str, default=None, help="checkpoint of the same architecture to start from")
    add("-num_gpus", type=int, default=1, help="number of GPUs to train with (default: %(default)s)")
    add("--npz", action="store_true", help="also save the class probabilities of the validation cases, for ensembling")
    add("--c", action="store_true", help="continue the training from its last checkpoint")
    add(
        "--allow_config_change",
        action="store_true",
        help="continue (--c) also if plans, cases, labels or settings are not those that the training was started with",
    )
    add("--val", action="store_true", help="only validate; the training must have finished")
    add(
        "--val_best",
        action="store_true",
        help="validate checkpoint_best instead of checkpoint_final, into the same folder",
    )
    add("--disable_checkpointing", action="store_true", help="write no checkpoints, to try things out")
    add("--force", action="store_true", help="train although another process seems to train this fold")
    add(
        "--fast_dev_run",
        action="store_true",
        help="only try one training step, one validation step and the prediction of one case; keeps nothing",
    )
    add(
        "--seed",
        type=seed_of_command,
        default=None,
        metavar="N",
        help="makes the training repeatable, also over --c (default: every training draws other random numbers)",
    )
    add_split_arguments(parser)
    _add_budget(parser)
    add(
        "-device",
        type=str,
        default="cuda",
        help="cuda, cpu or mps (default: %(default)s); pick a GPU by CUDA_VISIBLE_DEVICES",
    )
    add(
        "-augmentation_device",
        choices=AUGMENTATION_DEVICES,
        default="cpu",
        help="cuda: augment on the GPU that trains, if the CPU cannot keep up with it (default: %(default)s)",
    )


def _add_budget(parser: argparse.ArgumentParser) -> None:
    meanings = {
        "num_epochs": "epochs of the training, also over --c, which may change it to continue a finished training",
        "num_iterations_per_epoch": "training iterations of an epoch, also over --c",
        "num_val_iterations_per_epoch": "validation iterations of an epoch, also over --c",
    }
    for name, meaning in meanings.items():
        text = f"{meaning} (default: those of the trainer)"
        parser.add_argument(f"--{name}", type=int, default=None, metavar="N", help=text)
    text = "number format to train in, also over --c (default: that of the trainer)"
    parser.add_argument("--precision", choices=PRECISIONS, default=None, help=text)


def build_parser() -> argparse.ArgumentParser:
    """Parser of `nnUNetv2_train`."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_train", description="Train one fold of a configuration and validate it.", allow_abbrev=False
    )
    add_training_arguments(parser)
    return parser

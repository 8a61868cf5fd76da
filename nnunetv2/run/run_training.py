"""The training command: finds dataset, plans and trainer, then trains and validates in one or several processes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov3.utils.processes.launch import find_free_network_port
from dinov3.utils.processes.stop_signals import ended_by_signals
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_results
from nnunetv2.run.fold_lock import only_training
from nnunetv2.run.load_pretrained_weights import require_pretrained_file
from nnunetv2.run.trainer_setup import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.run.training_run import (
    DEFAULT_PLANS,
    DEFAULT_TRAINER,
    TrainingRun,
    add_training_arguments,
    build_parser,
    parse_fold,
)
from nnunetv2.training.setup.budget import Budget
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.crossval_split import SplitRule, split_rule_of
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.processes.command_processes import (
    log_the_first_process_only,
    num_started_processes,
    require_num_gpus,
    train_as_one_of_several,
    train_in_processes,
)
from nnunetv2.utilities.training_commands import programs_with_settings

if TYPE_CHECKING:
    import torch

__all__ = [
    "add_training_arguments",
    "build_parser",
    "cleanup_ddp",
    "find_free_network_port",
    "get_trainer_from_args",
    "maybe_load_checkpoint",
    "run_ddp",
    "run_from_arguments",
    "run_training",
    "run_training_entry",
    "setup_ddp",
]

logger = logging.getLogger(__name__)

_RESUME = "The same command with --c continues from the last checkpoint"


def setup_ddp(rank: int, world_size: int, backend: str = "nccl") -> None:
    """Joins the process group of a distributed training; requires MASTER_ADDR and MASTER_PORT."""
    import torch.distributed

    torch.distributed.init_process_group(backend, rank=rank, world_size=world_size)


def cleanup_ddp() -> None:
    """Leaves the process group."""
    import torch.distributed

    torch.distributed.destroy_process_group()


def run_ddp(  # noqa: PLR0913 - upstream's signature
    rank: int,
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    tr: str,
    p: str,
    disable_checkpointing: bool,
    c: bool,
    val: bool,
    pretrained_weights: str | None,
    npz: bool,
    val_with_best: bool,
    world_size: int,
    device_type: str = "cuda",
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Runs one process of a distributed training; arguments as in the command, `rank` counts from 0."""
    run = TrainingRun(
        dataset=dataset_name_or_id,
        configuration=configuration,
        fold=fold,
        trainer_name=tr,
        plans_identifier=p,
        pretrained_weights=pretrained_weights,
        save_probabilities=npz,
        continue_training=c,
        only_validate=val,
        disable_checkpointing=disable_checkpointing,
        validate_best=val_with_best,
        device_type=device_type,
        trainer_kwargs=trainer_kwargs or {},
    )
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.setdefault("LOCAL_RANK", str(rank))
    train_as_one_of_several(train_and_validate, (run,), run.device_type)


@ended_by_signals(_RESUME)
def train_and_validate(run: TrainingRun) -> None:
    """Executes a run in this process, which may be one of a group."""
    import torch

    from nnunetv2.run.augmentation_choice import augment_on
    from nnunetv2.run.resolution_advice import advise_on_resolution
    from nnunetv2.run.training_memory import explained_lack_of_memory
    from nnunetv2.training.setup import seeding
    from nnunetv2.training.state import checkpoint

    _prepare_torch(run.device_type)
    trainer = get_trainer_from_args(
        run.dataset,
        run.configuration,
        run.fold,
        run.trainer_name,
        run.plans_identifier,
        run.continue_training or run.only_validate,  # external loggers continue their run
        torch.device(run.device_type),
        run.trainer_kwargs,
    )
    if run.disable_checkpointing:
        trainer.disable_checkpointing = True
    if run.seed is not None:
        trainer.seed = run.seed
    if trainer.seed is None:  # here, not in the trainer: programs that use it seed the generators as they like
        trainer.drawn_seed = seeding.draw()
    augment_on(trainer, run.augmentation_device)
    trainer.split_rule = run.split_rule
    trainer.keep_to_budget(run.budget)  # before initialize, as the schedule depends on the length
    trainer.require_fold()  # before weights are downloaded or loaded
    if not (run.continue_training or run.only_validate):
        advise_on_resolution(trainer)
    with explained_lack_of_memory(trainer):
        start = (run.continue_training, run.only_validate, run.pretrained_weights, run.validate_best)
        maybe_load_checkpoint(trainer, *start, allow_config_change=run.allow_config_change)
        if not run.only_validate:
            trainer.run_training()
    if not run.only_validate:
        trainer.restored_checkpoint = (None, None)  # also if it was complete: the network is the final one
        if run.validate_best:
            best = checkpoint.require_checkpoint(Path(trainer.output_folder), checkpoint.BEST, "--val_best")
            trainer.load_checkpoint(str(best))
    trainer.perform_actual_validation(run.save_probabilities)


def _prepare_torch(device_type: str) -> None:
    import torch

    from nnunetv2.training.setup import device_settings

    device_settings.set_threads(device_type)
    if device_type == "cuda":
        torch.backends.cudnn.benchmark = True  # patches have a constant size, so the search for fast kernels pays off


@ended_by_signals(_RESUME)
def run_training(  # noqa: PLR0913 - upstream's signature
    dataset_name_or_id: int | str,
    configuration: str,
    fold: int | str,
    trainer_class_name: str = DEFAULT_TRAINER,
    plans_identifier: str = DEFAULT_PLANS,
    pretrained_weights: str | None = TrainingRun.pretrained_weights,
    num_gpus: int = 1,
    export_validation_probabilities: bool = TrainingRun.save_probabilities,
    continue_training: bool = TrainingRun.continue_training,
    only_run_validation: bool = TrainingRun.only_validate,
    disable_checkpointing: bool = TrainingRun.disable_checkpointing,
    val_with_best: bool = TrainingRun.validate_best,
    device: torch.device | None = None,
    trainer_kwargs: Mapping[str, Any] | None = None,
    fast_dev_run: bool = TrainingRun.fast_dev_run,
    seed: int | None = TrainingRun.seed,
    num_epochs: int | None = None,
    num_iterations_per_epoch: int | None = None,
    num_val_iterations_per_epoch: int | None = None,
    precision: str | None = None,
    allow_config_change: bool = TrainingRun.allow_config_change,
    force: bool = False,
    split_rule: SplitRule | None = None,
    augmentation_device: str = TrainingRun.augmentation_device,
) -> None:
    """Trains one fold and validates it; arguments as in the command `nnUNetv2_train`.

    Args:
        num_gpus: number of processes to start, one per GPU; on the CPU they communicate through gloo. Must be 1 if
            `torchrun` started this process as one of several, which then train together.
        device: None means CUDA.
        trainer_kwargs: further arguments of the trainer's constructor.
        fast_dev_run: run every step once and keep nothing, see `nnunetv2.run.fast_dev_run`.
        seed: seed of all random numbers, 0 to 2**32 - 1; None: not reproducible, unless the trainer or the resumed
            checkpoint has a seed.
        num_epochs: length of the training, which may differ from that of a resumed one; None: taken from the trainer or
            the resumed checkpoint; the latter holds for the next two.
        precision: fp32, fp16 or bf16; None: as for `num_epochs`.
        allow_config_change: continue a training also if plans, cases, labels or settings have changed since its start.
        force: train even if another process holds the lock of the fold.
        split_rule: number of folds, and cases that stay together; None: nnU-Net's default.
        augmentation_device: where training batches are augmented: cpu, in the workers; or cuda, on the GPU that trains.

    Raises:
        UsageError: `nnUNet_results` is not set; see also `get_trainer_from_args` and `maybe_load_checkpoint`.
        DivergedError: the loss was not finite.
        LockedError: another process trains or validates this fold.
        PreemptedError: SIGTERM, SIGINT or SIGUSR1 ended the training, whose completed epochs are saved.
    """
    run = TrainingRun(
        dataset=dataset_name_or_id,
        configuration=configuration,
        fold=parse_fold(fold),
        trainer_name=trainer_class_name,
        plans_identifier=plans_identifier,
        pretrained_weights=pretrained_weights,
        save_probabilities=export_validation_probabilities,
        continue_training=continue_training,
        allow_config_change=allow_config_change,
        only_validate=only_run_validation,
        disable_checkpointing=disable_checkpointing,
        validate_best=val_with_best,
        fast_dev_run=fast_dev_run,
        device_type="cuda" if device is None else device.type,
        trainer_kwargs=trainer_kwargs or {},
        seed=seed,
        budget=Budget(num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch, precision),
        split_rule=split_rule or SplitRule(),
        augmentation_device=augmentation_device,
    )
    nnUNet_results.require()
    _require_numbers_of_workers()
    if plans_identifier == DEFAULT_PLANS and trainer_class_name == DEFAULT_TRAINER:
        logger.info(
            "Using the default plans; the residual encoder presets (planners nnUNetPlannerResEncM, L, XL) score higher"
        )
    if fast_dev_run:
        _try_once(run, num_gpus)
        return
    with only_training(run, force=force):
        train_in_processes(train_and_validate, (run,), num_gpus, run.device_type)


def _require_numbers_of_workers() -> None:
    """Rejects invalid numbers of processes now, instead of minutes later or after the last epoch."""
    get_allowed_n_proc_DA()
    get_default_num_processes()


def _try_once(run: TrainingRun, num_processes: int) -> None:
    from nnunetv2.run.fast_dev_run import try_training

    if num_processes > 1:
        raise UsageError(f"--fast_dev_run tries one process; leave out -num_gpus {num_processes}")
    if num_started_processes() > 1:
        raise UsageError("--fast_dev_run tries one process; start the command without torchrun")
    _prepare_torch(run.device_type)
    try_training(run)


@ended_by_signals(_RESUME)  # already here: importing torch takes seconds
def run_from_arguments(
    args: argparse.Namespace, trainer_name: str | None = None, trainer_kwargs: Mapping[str, Any] | None = None
) -> None:
    """Runs a training with the arguments parsed by `add_training_arguments`.

    Args:
        trainer_name: overrides `-tr`.
        trainer_kwargs: further arguments of the trainer's constructor.
    """
    require_num_gpus(args.num_gpus)
    if args.pretrained_weights is not None:
        require_pretrained_file(args.pretrained_weights)
    if not (args.force or args.fast_dev_run):
        place = (args.dataset_name_or_id, args.configuration, parse_fold(args.fold), trainer_name or args.tr, args.p)
        with only_training(TrainingRun(*place)):
            pass  # refused now instead of after importing torch
    from dinov3.utils.devices import resolve_device  # imports torch

    log_the_first_process_only()
    run_training(
        args.dataset_name_or_id,
        args.configuration,
        args.fold,
        trainer_name or args.tr,
        args.p,
        args.pretrained_weights,
        args.num_gpus,
        args.npz,
        args.c,
        args.val,
        args.disable_checkpointing,
        args.val_best,
        device=resolve_device(args.device),
        trainer_kwargs=trainer_kwargs,
        fast_dev_run=args.fast_dev_run,
        seed=args.seed,
        num_epochs=args.num_epochs,
        num_iterations_per_epoch=args.num_iterations_per_epoch,
        num_val_iterations_per_epoch=args.num_val_iterations_per_epoch,
        precision=args.precision,
        allow_config_change=args.allow_config_change,
        force=args.force,
        split_rule=split_rule_of(args),
        augmentation_device=args.augmentation_device,
    )


@command
def run_training_entry(argv: Sequence[str] | None = None) -> None:
    """Console command `nnUNetv2_train`."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    settings = [word for word in unknown if "=" in word or word.endswith("_config")]
    if settings:
        raise UsageError(f"nnUNetv2_train takes no settings ({settings[0]}); {programs_with_settings()} do")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    run_from_arguments(args)


if __name__ == "__main__":
    sys.exit(run_training_entry())

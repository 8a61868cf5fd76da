"""One fold of a configuration in training: settings, plans, folders, log, and snapshots of its state.

Modules below the trainer receive values or one of the states created here, never the trainer itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import torch

from dinov3.utils import divergence
from dinov3.utils.processes import process_group, stop_signals
from nnunetv2.errors import PreemptedError
from nnunetv2.training.logging import training_log
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.loop import preemption
from nnunetv2.training.loop.training_reports import TrainingReports, TrainingStatus
from nnunetv2.training.protocol.conditions import Conditions
from nnunetv2.training.protocol.run_information import TrainingDescription
from nnunetv2.training.setup import distributed, init_arguments
from nnunetv2.training.setup.budget import Budget, BudgetInForce, in_force
from nnunetv2.training.state import checkpoint, model_folder
from nnunetv2.training.validation import full_validation
from nnunetv2.utilities.crossval_split import SplitRule
from nnunetv2.utilities.plans_handling import plans_handler

_CUDA = torch.device("cuda")


class FoldTraining:
    """State and settings of a trainer, without the training hooks; see `nnUNetTrainer` for the arguments.

    Class attributes are settings. Underscored methods return a snapshot of the current state, each for one subpackage.
    """

    initial_lr: float = 1e-2
    weight_decay: float = 3e-5
    momentum: float = 0.99
    gradient_clip_norm: float | None = 12  # maximum L2 norm of the gradient; None: no clipping
    oversample_foreground_percent: float = 0.33  # share of samples that must contain foreground, 0 to 1
    probabilistic_oversampling: bool = False
    num_epochs: int = 1000
    num_iterations_per_epoch: int = 250
    num_val_iterations_per_epoch: int = 50
    enable_deep_supervision: bool = True
    context_slices: int = 1  # slices that a 2-D network sees at once, as channels of its images
    needs_tubes: bool = False  # targets get channels of tubes, see `nnunetv2.training.loss.tubes`
    augmentation_device: str = "cpu"  # cpu: in the workers; cuda: on the GPU that trains; set by the command
    reads_targets_on_host: bool = False  # the loss needs to know on the CPU which labels occur
    precision: str | None = None  # fp32, bf16 or fp16; None: fp16 on CUDA, fp32 elsewhere
    scheduler_step_per_iteration: bool = False  # step after every update; false: at the start of every epoch
    save_every: int = 50  # epochs between writes of checkpoint_latest.pth
    disable_checkpointing: bool = False
    seed: int | None = None  # 0 to 2**32 - 1; None: one is drawn, and kernels need not be deterministic
    drawn_seed: int | None = None  # set by the command if there is no seed; None: generators of the program are used
    split_rule: SplitRule = SplitRule()  # number of folds, cases that stay together
    budget: BudgetInForce | None = None  # length and precision set by the command
    trainer_config: dict[str, Any] | None = None  # further settings as plain data, for checkpoints
    pretrained_file: str | None = None  # file that the whole network was initialised from
    record: dict[str, Any] | None = None  # what the running training learns from, see `training_record`
    restored_checkpoint: tuple[str | None, int | None] = (None, None)  # file and epoch of the last loaded checkpoint

    def __new__(cls, *args: Any, **kwargs: Any) -> FoldTraining:
        trainer = super().__new__(cls)
        # Only __new__ sees the arguments of the outermost constructor, including those that subclasses add.
        trainer._constructor_arguments = init_arguments.bound_arguments(cls.__init__, args, kwargs)
        return trainer

    def __init__(
        self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device = _CUDA
    ) -> None:
        self.is_ddp = process_group.is_distributed()
        self.local_rank = process_group.rank_and_world_size()[0]
        self.device = process_group.device_of_this_process(device)
        self._resume = bool(plans.get("continue_training", False))
        plans = deepcopy({key: value for key, value in plans.items() if key != "continue_training"})
        plans_handler.PlansManager(plans).get_configuration(configuration)  # rejects an unknown name early
        self.plans_manager = plans_handler.PlansManager(self.adapt_plans(plans, configuration))
        self.configuration_manager = self.plans_manager.get_configuration(configuration)
        self.configuration_name, self.fold, self.dataset_json = configuration, fold, dataset_json
        self.label_manager = self.plans_manager.get_label_manager(dataset_json)
        common = {"configuration": configuration, "fold": fold, "dataset_json": dataset_json, "device": device}
        self.my_init_kwargs = init_arguments.with_added(
            {"plans": self.plans_manager.plans, **common}, self._constructor_arguments, type(self).__name__
        )
        folders = model_folder.run_folders(type(self).__name__, self.plans_manager, configuration, fold)
        self.preprocessed_dataset_folder_base, self.preprocessed_dataset_folder = folders.dataset, folders.cases
        self.output_folder_base, self.output_folder = folders.model, folders.fold
        self.folder_with_segs_from_previous_stage = folders.previous_stage
        self.is_cascaded = self.configuration_manager.previous_stage_name is not None

        self.was_initialized = False
        self.network = self.optimizer = self.lr_scheduler = self.loss = None  # set by initialize
        self.num_input_channels = self.dataset_class = None
        self.batch_size = self.configuration_manager.batch_size
        self.grad_scaler = torch.amp.GradScaler("cuda") if self.device.type == "cuda" else None
        self.dataloader_train = self.dataloader_val = None  # set by on_train_start
        self.inference_allowed_mirroring_axes = None  # set with the augmentation
        self.current_epoch, self._best_ema = 0, None
        self._latest_is_due = False  # checkpoint_latest could not be written when it was due
        self.start_notes: list[str] = []  # lines for the log of a training that starts
        self._length_note: str | None = None  # for the log, if the resumed training had another number of epochs
        self._divergence_guard = divergence.DivergenceGuard()
        self._completed: dict[str, Any] | None = None  # content of a checkpoint, set after every epoch
        self._reports = TrainingReports(self._status)

    @cached_property
    def logger(self) -> Any:
        """History of losses and metrics; created on first use, because external loggers start a run."""
        logger = MetaLogger(self.output_folder, self._resume)
        logger.update_config({key: value for key, value in self.my_init_kwargs.items() if key != "device"})
        logger.loggers.append(self._reports)
        return logger

    @cached_property
    def log_file(self) -> str | None:
        """Path of this run's text log; None without a results folder."""
        return self.output_folder and os.path.join(self.output_folder, training_log.log_file_name(datetime.now()))

    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        """Hook: returns the plans to train with; `plans` is a copy and may be modified. Called by the constructor."""
        return plans

    def print_to_log_file(self, *args: object, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Writes one line to the log file and to the console, in the first process only."""
        if self.local_rank == 0:
            training_log.write_line(self.log_file, args, timestamp=add_timestamp, console=also_print_to_console)

    def keep_to_budget(self, budget: Budget) -> None:
        """Applies length and precision set by the command; call it before `initialize`.

        Raises:
            UsageError: the trainer's settings contradict the budget.
        """
        values, in_use = budget.given(), self._budget_in_use()
        if values:
            self.follow_budget(values)
            self.budget = in_force(values, in_use, self.budget)
            for name, value in values.items():
                setattr(self, name, value)

    def follow_budget(self, values: Mapping[str, int | str]) -> None:
        """Hook: applies the command's flags to the trainer's own settings."""

    def _budget_in_use(self) -> dict[str, int | str | None]:
        return {name: getattr(self, name) for name in Budget.names()}

    def checkpoint_content(self) -> dict[str, Any]:
        """Content that `save_checkpoint` writes."""
        drawn = {} if self.drawn_seed is None else {"drawn_seed": self.drawn_seed}
        return drawn | checkpoint.content_of(
            self._state(),
            trainer_name=type(self).__name__,
            init_arguments=self.my_init_kwargs,
            seed=self.seed,
            budget=self.budget,
            settings=self.trainer_config,
            record=self.record,
        )

    def _seed_of_draws(self) -> int | None:
        return self.drawn_seed if self.seed is None else self.seed

    @contextmanager
    def _saved_on_signals(self) -> Iterator[Callable[[preemption.Step], preemption.Step]]:
        """Within the block, a signal ends the training after the running step, in all processes after the same one.

        Yields a function that makes a step look for signals.

        Raises:
            PreemptedError: a signal ended the training; completed epochs are saved.
        """
        if not stop_signals.are_handled():
            yield lambda step: step
            return
        with stop_signals.deferred():
            vote = stop_signals.StopVote()
            try:
                yield partial(preemption.stoppable, vote)
            except preemption.StopTraining:
                who = stop_signals.requested() or "a signal to another process"
                message = f"Stopped by {who}: {self._save_epochs()}"
                self.print_to_log_file(message, also_print_to_console=False)
                process_group.wait_for_all()  # the first process to end makes the others end
                raise PreemptedError(message) from None
            if vote.result():
                raise PreemptedError(f"Stopped by a signal after the last epoch. {preemption.RESUME}")

    def _remember_epoch(self) -> None:
        """Keeps what a checkpoint of the completed epochs contains, for a signal in the middle of the next one.

        Half an epoch cannot be resumed exactly, and checkpoint_latest.pth may be many epochs old.
        """
        is_wanted = self.local_rank == 0 and not self.disable_checkpointing and self.current_epoch < self.num_epochs
        if is_wanted and stop_signals.are_handled():
            content = {**self.checkpoint_content(), "current_epoch": self.current_epoch}
            self._completed = preemption.copied(content, self._completed)

    def _save_epochs(self) -> str:
        """Writes the completed epochs to checkpoint_latest.pth; returns what was saved, for the user."""
        epoch, completed = self.current_epoch, self._completed
        if self.disable_checkpointing:
            return "checkpoints are disabled, so nothing was saved"
        if epoch == 0:
            return "no epoch was completed, so there is nothing to resume; start the training again"
        if completed is not None:  # else no epoch has ended since the training was resumed from a checkpoint
            vars(self)["checkpoint_content"] = lambda: completed
            self.current_epoch = epoch - 1  # trainers for upstream build the content themselves, from this number
            self.save_checkpoint(os.path.join(self.output_folder, checkpoint.LATEST))
        return f"{epoch} of {self.num_epochs} epochs are completed and saved. {preemption.RESUME}"

    def _state(self) -> checkpoint.TrainingState:
        return checkpoint.TrainingState(
            network=self.network,
            optimizer=self.optimizer,
            grad_scaler=self.grad_scaler,
            lr_scheduler=self.lr_scheduler if self.scheduler_step_per_iteration else None,
            logger=self.logger,
            epoch=self.current_epoch,
            num_epochs=self.num_epochs,
            best_ema=self._best_ema,
            mirror_axes=self.inference_allowed_mirroring_axes,
        )

    def validation_setting(self, num_processes: int, save_probabilities: bool) -> full_validation.ValidationSetting:
        """Inputs and output folders of this trainer's validation."""
        return full_validation.ValidationSetting(
            plans_manager=self.plans_manager,
            configuration_manager=self.configuration_manager,
            dataset_json=self.dataset_json,
            preprocessed_folder_base=self.preprocessed_dataset_folder_base,
            model_folder=self.output_folder_base,
            output_folder=os.path.join(self.output_folder, "validation"),
            trainer_name=type(self).__name__,
            device=self.device,
            mirror_axes=self.inference_allowed_mirroring_axes,
            save_probabilities=save_probabilities,
            num_processes=num_processes,
        )

    def _status(self) -> TrainingStatus:
        return TrainingStatus(
            description=self._description(),
            epoch=self.current_epoch,
            best_ema=self._best_ema,
            learning_rates=[float(group["lr"]) for group in getattr(self.optimizer, "param_groups", ())],
            logger=self.logger,
            labels=self.label_manager,
            output_folder=self.output_folder,
            writes_checkpoints=not self.disable_checkpointing,
            restored_checkpoint=self.restored_checkpoint,
            print_line=self.print_to_log_file,
        )

    def _description(self) -> TrainingDescription:
        return TrainingDescription(
            trainer=type(self).__name__,
            plans=self.plans_manager.plans_name,
            dataset=self.plans_manager.dataset_name,
            configuration=self.configuration_name,
            fold=self.fold,
            num_epochs=self.num_epochs,
            num_iterations_per_epoch=self.num_iterations_per_epoch,
            num_val_iterations_per_epoch=self.num_val_iterations_per_epoch,
            batch_size=distributed.global_batch_size(self.batch_size, self.configuration_manager.batch_size),
            patch_size=self.configuration_manager.patch_size,
            precision=self.precision,
            seed=self.seed,
            drawn_seed=self.drawn_seed,
            network=self.network,
            device=self.device,
            conditions=self._conditions(),
        )

    def _conditions(self) -> Conditions:
        validation = "perform_actual_validation"
        owner = next((owner for owner in type(self).__mro__ if validation in vars(owner)), None)
        return Conditions(
            training_batches=self.dataloader_train,
            validation_batches=self.dataloader_val,
            dataset_folder=self.preprocessed_dataset_folder_base,
            probabilistic_oversampling=self.probabilistic_oversampling,
            is_distributed=self.is_ddp,
            has_own_validation=owner is None or owner.__name__ != "nnUNetTrainer",
            mirror_axes=self.inference_allowed_mirroring_axes,
            network=self.network,
            optimizer=self.optimizer,
            initial_lr=self.initial_lr,
            settings=self.trainer_config,
            pretrained_file=self.pretrained_file,
        )

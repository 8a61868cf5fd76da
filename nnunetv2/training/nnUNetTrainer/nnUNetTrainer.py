"""The trainer: hooks that users override, in the order in which a training calls them.

Hooks contain the sequence of steps; the steps are functions of `nnunetv2.training` that do not need a trainer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dinov3.utils import divergence
from dinov3.utils.fused_optimizers import fused_on
from dinov3.utils.host_copies import LateScalar
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.optimizer_step import update_weights
from dinov3.utils.precision import precision_context, resolve_precision, tensor_cores_for_float32
from dinov3.utils.processes import process_group
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import UsageError
from nnunetv2.model import network_hook
from nnunetv2.training.data_augmentation import default_pipeline
from nnunetv2.training.data_augmentation.context_slices import of_context_slices
from nnunetv2.training.data_augmentation.custom_transforms.tubes import followed_by_tubes
from nnunetv2.training.data_augmentation.patch_geometry import augmentation_geometry, deep_supervision_scales
from nnunetv2.training.dataloading import batches
from nnunetv2.training.dataloading.random_streams import sample_streams
from nnunetv2.training.dataloading.splits import Split, load_or_create_splits, read_or_generate_splits, select_fold
from nnunetv2.training.logging import training_log
from nnunetv2.training.loop.fold_training import FoldTraining
from nnunetv2.training.loss.default_loss import build_loss
from nnunetv2.training.loss.loss_config import LabelTask
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.protocol import training_record
from nnunetv2.training.setup import device_settings, distributed, seeding
from nnunetv2.training.setup.budget import prolonged, resumed_budget
from nnunetv2.training.state import cascade_stages, checkpoint, debug_information, model_folder
from nnunetv2.training.state.architecture_check import require_same_architecture
from nnunetv2.training.validation import full_validation, online_metrics
from nnunetv2.utilities import torch_compile
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.helpers import empty_cache
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling import plans_handler

if TYPE_CHECKING:
    from nnunetv2.preprocessing.stored_cases import nnUNetBaseDataset


class nnUNetTrainer(FoldTraining):
    """Trains one fold of one configuration and validates it.

    Subclasses change a training by class attributes (listed in `FoldTraining`) and by overriding hooks. A subclass may
    add keyword arguments to the constructor; they must be plain data and are stored in checkpoints.

    Args:
        plans: content of a plans file; not modified.
        configuration: name of one of its configurations.
        fold: number of the split, or "all".
        dataset_json: content of the dataset's dataset.json.
        device: where to train; with several processes, each uses its own GPU.
    """

    def initialize(self) -> None:
        """Creates network, optimiser, schedule and loss; called once."""
        if self.was_initialized:
            raise RuntimeError("initialize was called a second time; a trainer is initialised once")
        seeding.start(self.seed, self.drawn_seed)  # before the network draws its initial weights
        self._set_batch_size_and_oversample()
        managers = (self.plans_manager, self.configuration_manager)
        self.num_input_channels = determine_num_input_channels(*managers, self.dataset_json)
        channels = (self.num_input_channels, self.label_manager.num_segmentation_heads)
        hook, supervised = self.build_network_architecture, self.enable_deep_supervision
        self.network = network_hook.call_network_hook(hook, *managers, *channels, supervised).to(self.device)
        if self._do_i_compile():
            self.network = torch_compile.compiled(self.network)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            known = {"deep_supervision": self.enable_deep_supervision, "settings": self.trainer_config}
            self.network = distributed.distribute(self.network, self.device, **known)
        self.loss = self._build_loss()
        if resolve_precision(self.precision, self.device) != "fp16":
            self.grad_scaler = None  # only fp16 needs loss scaling
        self._find_dataset_class()
        self.was_initialized = True
        hyper_parameters = {name: getattr(self, name) for name in debug_information.HYPER_PARAMETERS}
        self.logger.update_config({"hparas": hyper_parameters})

    def _set_batch_size_and_oversample(self) -> None:
        rank, world_size = process_group.rank_and_world_size()
        self.batch_size, forced = distributed.share_of_batch(
            self.configuration_manager.batch_size, self.oversample_foreground_percent, rank, world_size
        )
        if not self.probabilistic_oversampling:  # a per-sample probability is the same in every process
            self.oversample_foreground_percent = forced

    @staticmethod
    def build_network_architecture(
        plans_manager: plans_handler.PlansManager,
        configuration_manager: plans_handler.ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Hook: returns the network, by default that of the plans. Called by training and prediction."""
        return network_hook.build_planned_network(
            configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def _do_i_compile(self) -> bool:
        return device_settings.should_compile(self.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Hook: returns parameter groups for the optimiser, each with the settings that it overrides."""
        return [{"params": list(self.network.parameters())}]

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Hook: returns optimiser and learning rate schedule; `step` takes the epoch (no argument if per iteration)."""
        settings = {"momentum": self.momentum, "nesterov": True, "weight_decay": self.weight_decay}
        optimizer = torch.optim.SGD(self.parameter_groups(), self.initial_lr, **settings, fused=fused_on(self.device))
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self) -> Any:
        scales, is_compiled = self._get_deep_supervision_scales(), self._do_i_compile()
        batch_dice = self.configuration_manager.batch_dice
        return build_loss(self.label_manager, batch_dice, scales, is_ddp=self.is_ddp, is_compiled=is_compiled)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        strides = self.configuration_manager.pool_op_kernel_sizes if self.enable_deep_supervision else None
        return None if strides is None else deep_supervision_scales(strides)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Hook: switches deep supervision on or off; networks without that switch are not changed."""
        network_hook.switch_deep_supervision(unwrap(self.network), enabled)

    def print_plans(self) -> None:
        """Hook: writes the configuration and the shared part of the plans to the log file."""
        plans = (self.plans_manager.plans, self.configuration_name, self.configuration_manager)
        for line in training_log.plans_lines(*plans):
            self.print_to_log_file(line, also_print_to_console=False)

    def plot_network_architecture(self) -> None:
        """Hook: saves a description of the network, here its layers as text."""
        if self.local_rank == 0:
            model_folder.write_network_listing(unwrap(self.network), self.output_folder)

    def _save_debug_information(self) -> None:
        if self.local_rank == 0:
            loaders = {"dataloader_train": self.dataloader_train, "dataloader_val": self.dataloader_val}
            attributes = debug_information.describe_object(self)
            debug_information.write_debug_json(self.output_folder, attributes, loaders, self.device)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """Hook: returns rotation range, whether to rotate in-plane only, initial patch size, and mirror axes."""
        settings = augmentation_geometry(self.configuration_manager.patch_size)
        self.inference_allowed_mirroring_axes = settings.mirror_axes
        return settings.rotation, settings.do_dummy_2d, settings.initial_patch_size, settings.mirror_axes

    get_training_transforms = staticmethod(default_pipeline.training_transforms)
    get_validation_transforms = staticmethod(default_pipeline.validation_transforms)

    def do_split(self) -> tuple[list[str], list[str]]:
        """Hook: returns the identifiers of training and validation cases of this fold."""
        return self._cases_of_fold(load_or_create_splits)

    def _cases_of_fold(self, make_splits: Callable[..., list[Split]]) -> tuple[list[str], list[str]]:
        if self.dataset_class is None:
            self._find_dataset_class()
        cases = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        folder, rule = self.preprocessed_dataset_folder_base, self.split_rule
        splits = [] if self.fold == "all" else make_splits(folder, cases, rule)
        return select_fold(splits, self.fold, cases, allow_leak=rule.allow_leak)

    def _find_dataset_class(self) -> None:
        from nnunetv2.preprocessing.stored_cases import infer_dataset_class  # imports blosc2; prediction needs no cases

        self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)

    def require_fold(self) -> None:
        """Checks that the fold and its cases exist; writes nothing, so that it can precede the loading of weights.

        Raises:
            UsageError: the fold does not exist.
            DataError: cases or the segmentations of the previous stage are missing.
        """
        if type(self).do_split is nnUNetTrainer.do_split:  # the hook of a subclass may write, and knows other folds
            training, validation = self._cases_of_fold(read_or_generate_splits)
            self._require_inputs([*training, *validation])

    def training_record(self) -> dict[str, Any]:
        """Returns what is trained on: plans, labels, cases and settings; a resumed training compares it."""
        managers = plans_handler.PlansManager(self.plans_manager.plans), self.configuration_name
        return training_record.record_of(*managers, self.dataset_json, self.do_split(), self.trainer_config)

    def _require_inputs(self, identifiers: list[str]) -> None:
        previous, dataset = self.configuration_manager.previous_stage_name, self.preprocessed_dataset_folder_base
        folder = self.folder_with_segs_from_previous_stage
        cascade_stages.require_previous_segmentations(folder, identifiers, previous, dataset)

    def _open_cases(self, identifiers: list[str]) -> nnUNetBaseDataset:
        self._require_inputs(identifiers)
        folder, previous = self.preprocessed_dataset_folder, self.folder_with_segs_from_previous_stage
        return self.dataset_class(folder, identifiers, folder_with_segs_from_previous_stage=previous)

    def get_tr_and_val_datasets(self) -> tuple[nnUNetBaseDataset, nnUNetBaseDataset]:
        """Hook: returns the training and validation cases of this fold."""
        training, validation = self.do_split()
        self._require_inputs([*training, *validation])  # both at once, so that one message lists all missing cases
        return self._open_cases(training), self._open_cases(validation)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Hook: returns endless iterators over augmented training batches and unaugmented validation batches."""
        augment, convert, cut_size = self.get_transforms()
        size, labels = self.configuration_manager.patch_size, self.label_manager
        oversampling = (self.oversample_foreground_percent, self.probabilistic_oversampling)
        per_epoch = (self.num_iterations_per_epoch, self.num_val_iterations_per_epoch)
        on_device = batches.DeviceAugmentation(self.device, self.reads_targets_on_host)
        if self.context_slices > 1 and self.augmentation_device != "cpu":
            raise UsageError(
                f"-augmentation_device {self.augmentation_device} cannot augment {self.context_slices} slices alike; "
                f"leave it out to augment on the CPU"
            )
        return batches.start(
            self.get_tr_and_val_datasets(),
            (cut_size, size),
            (augment, convert),
            batches.Drawing(self.batch_size, size, labels, *oversampling, self.context_slices),
            streams=sample_streams(self._seed_of_draws(), self.batch_size, self.current_epoch, per_epoch),
            pin_memory=self.device.type == "cuda",
            keep_order=self.seed is not None,
            on_device=None if self.augmentation_device == "cpu" else on_device,
        )

    def get_transforms(self) -> batches.Transforms:
        """Builds the transforms of this configuration by the hooks; the trainer need not be initialised."""
        scales, size = self._get_deep_supervision_scales(), self.configuration_manager.patch_size
        rotation, dummy_2d, cut_size, axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        shared = batches.label_arguments(self.label_manager, self.is_cascaded)
        masked = self.configuration_manager.use_mask_for_norm
        geometry = (size, rotation, scales, axes, dummy_2d)
        augment = self.get_training_transforms(*geometry, use_mask_for_norm=masked, **shared)
        validate = self.get_validation_transforms(scales, **shared)
        if self.context_slices > 1:
            augment = of_context_slices(augment, self.context_slices)
        if self.needs_tubes:
            task = LabelTask.of(self.label_manager)
            augment, validate = followed_by_tubes(augment, task), followed_by_tubes(validate, task)
        return batches.Transforms(augment, validate, cut_size)

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        # From the plans: a subclass's network hook may have modified the arguments that it received.
        planned = plans_handler.PlansManager(self.plans_manager.plans).get_configuration(self.configuration_name)
        require_same_architecture(self.output_folder_base, self.configuration_name, planned)
        if self.local_rank == 0:
            batches.unpack(self.dataset_class, self.preprocessed_dataset_folder)
        process_group.wait_for_all()  # all processes read the unpacked files
        # Starts the workers before anything is written: if they fail, the model folder is unchanged.
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        if self.local_rank == 0:
            plans, dataset_folder = self.plans_manager.plans, self.preprocessed_dataset_folder_base
            model_folder.write_model_files(self.output_folder, plans, self.dataset_json, dataset_folder)
        managers = (self.plans_manager, self.configuration_manager)
        notes = [*self.start_notes, *([] if self._length_note is None else [self._length_note])]
        notes += seeding.log_lines(self.seed, self._loaders(), type(self).__name__, self.drawn_seed)
        for line in notes + cascade_stages.unprepared_next_stages(self.preprocessed_dataset_folder_base, *managers):
            self.print_to_log_file(line)
        self.print_plans()
        self.plot_network_architecture()
        self._save_debug_information()
        self.record = self.training_record()  # now, as files may change while the training runs
        empty_cache(self.device)

    def _loaders(self) -> tuple[Any, Any]:
        return self.dataloader_train, self.dataloader_val

    def run_training(self) -> None:
        """Trains from the current epoch to the last one."""
        fast = tensor_cores_for_float32(self.precision, self.device)
        with fast, seeding.deterministic_kernels(self.seed), batches.stopped_afterwards(self._loaders):
            self.on_train_start()
            with self._saved_on_signals() as stoppable:
                for epoch in range(self.current_epoch, self.num_epochs):
                    train_step, validation_step = stoppable(self.train_step), stoppable(self.validation_step)
                    self.on_epoch_start()
                    self.on_train_epoch_start()
                    outputs = self._reports.train(train_step, self.dataloader_train)
                    self._divergence_guard.settle()
                    self.on_train_epoch_end(outputs)
                    with torch.no_grad():
                        self.on_validation_epoch_start()
                        self.on_validation_epoch_end(self._reports.validate(validation_step, self.dataloader_val))
                    self.on_epoch_end()
                    self._reports.end_epoch(epoch)
                    self._remember_epoch()
                self.on_train_end()

    def on_epoch_start(self) -> None:
        seeding.start_epoch(self._seed_of_draws(), self.current_epoch, self.local_rank)
        self.logger.log("epoch_start_timestamps", time(), self.current_epoch)

    def on_train_epoch_start(self) -> None:
        self.network.train()
        if not self.scheduler_step_per_iteration:
            self.lr_scheduler.step(self.current_epoch)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        for line in (f"Epoch {self.current_epoch}", f"Current learning rate: {learning_rate:.5g}"):
            self.print_to_log_file(line, also_print_to_console=False)
        self.logger.log("lrs", learning_rate, self.current_epoch)

    def forward_loss(self, data: torch.Tensor, target: batches.Target) -> tuple[torch.Tensor, Any]:
        """Hook: returns the scalar loss and the network's output; called under autocast by training and validation."""
        output = self.network(data)
        return self.loss(output, target), output

    def casting_weights(self) -> AbstractContextManager:
        """Hook: surrounds forward and backward pass of a training step; weights that it casts, autocast need not."""
        return nullcontext()

    def dense_logits(self, output: Any) -> torch.Tensor:
        """Hook: extracts the full-resolution logits (B, K, *spatial) from the network's output."""
        return output[0] if isinstance(output, (list, tuple)) else output

    def train_step(self, batch: dict) -> dict:
        """Hook: one update of the weights; returns a dict with the batch's `loss`, which on CUDA arrives later."""
        data, target = batches.to_device(batch, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        clip_norm, guard = self.gradient_clip_norm, self._divergence_guard
        with self.casting_weights():
            with precision_context(self.precision, self.device):
                loss, _ = self.forward_loss(data, target)
            update = update_weights(
                loss, self.network, self.optimizer, self.grad_scaler, clip_norm=clip_norm, guard=guard
            )
        if self.scheduler_step_per_iteration:
            self.lr_scheduler.step()
        return {"loss": update.loss}

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        losses = np.concatenate(process_group.gather(collate_outputs(train_outputs)["loss"]), axis=None)
        mean = divergence.mean_of_finite_losses(losses, self.current_epoch)
        self.logger.log("train_losses", mean, self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        self.network.eval()

    def validation_step(self, batch: dict) -> dict:
        """Hook: returns a dict with the batch's `loss` and, per foreground class, `tp_hard`, `fp_hard`, `fn_hard`."""
        data, target = batches.to_device(batch, self.device)
        with precision_context(self.precision, self.device):
            loss, output = self.forward_loss(data, target)
        loss = LateScalar.of(loss)  # read with the counts
        tp, fp, fn = online_metrics.count(self.dense_logits(output), target, self.label_manager)
        return {"loss": loss, "tp_hard": tp, "fp_hard": fp, "fn_hard": fn}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        outputs = collate_outputs(val_outputs)
        losses = np.concatenate(process_group.gather(outputs["loss"]), axis=None)
        counts = (process_group.gather(outputs[key].sum(0)) for key in ("tp_hard", "fp_hard", "fn_hard"))
        # Counts, not Dice scores, are combined over processes, which equals the Dice of all samples together.
        dice = online_metrics.pseudo_dice(*(np.sum(of_each_process, axis=0) for of_each_process in counts))
        self.logger.log("mean_fg_dice", online_metrics.mean_of_defined(dice), self.current_epoch)
        self.logger.log("dice_per_class_or_region", dice, self.current_epoch)
        self.logger.log("val_losses", float(losses.mean()), self.current_epoch)

    def on_epoch_end(self) -> None:
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        remaining = self.num_epochs - self.current_epoch - 1
        for line in training_log.epoch_lines(self.logger, remaining):
            self.print_to_log_file(line, also_print_to_console=False)
        ema = self.logger.get_value("ema_fg_dice", -1)
        if checkpoint.is_better(ema, self._best_ema):
            before, self._best_ema = self._best_ema, ema
            self.print_to_log_file(f"New best EMA pseudo Dice: {ema:.4f}", also_print_to_console=False)
            if not self._try_to_save(checkpoint.BEST):
                self._best_ema = before  # the score of the file, so that the next better epoch is saved
        self._latest_is_due |= (self.current_epoch + 1) % self.save_every == 0
        if remaining and self._latest_is_due:
            self._latest_is_due = not self._try_to_save(checkpoint.LATEST)  # includes the new best score
        self.current_epoch += 1

    def _try_to_save(self, name: str) -> bool:
        """Writes a checkpoint that a later epoch can write as well; false if the disk is full or cannot be reached."""
        try:
            self.save_checkpoint(os.path.join(self.output_folder, name))
        except OSError as err:
            self.print_to_log_file(f"WARNING: {err}. The training goes on and tries again after the next epoch")
            return False
        return True

    def on_train_end(self) -> None:
        checkpoint.write_final(self.save_checkpoint, self.output_folder)
        if self.local_rank == 0:
            checkpoint.remove_superseded(self.output_folder)
        for line in seeding.order_lines(self.drawn_seed, self._loaders()):
            self.print_to_log_file(line)
        batches.stop_augmenters(*self._loaders())
        empty_cache(self.device)
        self.print_to_log_file("Training done.")

    def save_checkpoint(self, filename: str) -> None:
        """Writes network, optimiser and history; a training that loads the file resumes with the next epoch."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            checkpoint.write(self.checkpoint_content(), filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        """Restores network, optimiser and history from a checkpoint file or its content."""
        self.initialize_for(filename_or_checkpoint)
        content, source = checkpoint.read(filename_or_checkpoint, self.device)
        self._resume_budget(content, source)
        is_finished = content["current_epoch"] >= self.num_epochs
        self.seed = seeding.resumed_seed(self.seed, content.get("seed"), is_finished, source)
        self.drawn_seed = content.get("drawn_seed")  # without one, the rest of an old training is not repeatable either
        restored = checkpoint.restore(self._state(), content, source)
        self.current_epoch, self._best_ema = restored.epoch, restored.best_ema
        self.inference_allowed_mirroring_axes = restored.mirror_axes
        self.restored_checkpoint = (os.path.basename(source), restored.epoch)
        self._length_note = prolonged(checkpoint.length_before(content, source), self.num_epochs, restored.epoch)

    def initialize_for(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        """Calls `initialize`, if not yet done, with the budget stored in a checkpoint."""
        if not self.was_initialized:
            self._resume_budget(*checkpoint.peek(filename_or_checkpoint))  # the schedule depends on the length
            self.initialize()

    def _resume_budget(self, content: Mapping[str, Any], source: str) -> None:
        in_use = self._budget_in_use() if self.was_initialized else None
        known = {"device": self.device, "trained_epochs": content.get("current_epoch", 0), "in_use": in_use}
        self.keep_to_budget(resumed_budget(self.budget, content.get("budget"), source, **known))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predicts the cases of the validation split and writes segmentations and metrics to the fold's folder."""
        setting = self.validation_setting(get_default_num_processes(), save_probabilities)
        self.set_deep_supervision_enabled(False)
        self.network.eval()
        cases = self.do_split()[1]
        with seeding.deterministic_kernels(self.seed):
            log = (self.logger, self.print_to_log_file)
            full_validation.validate(self.network, self._open_cases, cases, setting, *log)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)

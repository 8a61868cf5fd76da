"""`--fast_dev_run`: runs every step of training and prediction once, before a long training is started.

Trainer, network, settings, weights and hooks are the real ones. All output goes to a temporary folder, so that models
and preprocessed data do not change.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_results
from nnunetv2.preprocessing.stored_cases import infer_dataset_class, nnUNetBaseDataset
from nnunetv2.run import fast_dev_prediction, fast_dev_report
from nnunetv2.run.augmentation_choice import augment_on
from nnunetv2.run.fast_dev_report import Stopwatch, TrainingLength
from nnunetv2.run.fast_dev_sizes import batch_of, planned_batch_of, with_small_batches
from nnunetv2.run.trainer_setup import make_trainer, maybe_load_checkpoint
from nnunetv2.run.training_run import TrainingRun
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state.architecture_check import require_same_architecture
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.helpers import empty_cache

_SECONDS_FOR_A_CASE = 6


def try_training(run: TrainingRun) -> None:
    """Trains and validates one step, writes a checkpoint, predicts a case with it, and reports the durations.

    On the CPU, batches are made smaller. Otherwise there are two steps, and the duration of the training is estimated
    from the second.

    Raises:
        UsageError: as the training would.
        DataError: as the training would.
        DivergedError: as the training would.
    """
    started, num_workers, results = time.monotonic(), get_allowed_n_proc_DA(), Path(nnUNet_results)
    with temporary_results() as scratch:
        trainer = make_trainer_of(run)
        references = Path(trainer.preprocessed_dataset_folder_base, "gt_segmentations")
        redirect(trainer, results, scratch)
        trainer.require_fold()
        maybe_load_checkpoint(trainer, False, False, run.pretrained_weights)
        length, stopwatch = shorten(trainer), Stopwatch(trainer.device)
        trainer.train_step = stopwatch.timed("train", trainer.train_step)
        trainer.validation_step = stopwatch.timed("validate", trainer.validation_step)
        trainer.run_training()
        idle = fast_dev_report.idle_parameters(unwrap(trainer.network), trainer.enable_deep_supervision)
        facts = {"setup": f"{stopwatch.spans['train'][0][0] - started:.1f} s"}
        facts |= fast_dev_report.facts_of_training(trainer, stopwatch)
        facts |= fast_dev_report.facts_of_length(trainer, stopwatch, length, num_workers)
        forget_network(trainer)
        facts["prediction"] = predict(trainer, references, stopwatch, run.save_probabilities)
        facts["peak memory"] = fast_dev_report.peak_memory(trainer.device)
        dataset = trainer.plans_manager.dataset_name
        title = f"Fast dev run of {run.trainer_name}, {dataset}, {run.configuration}, fold {run.fold}, {trainer.device}"
        passed = f"Fast dev run passed in {time.monotonic() - started:.0f} s; nothing of it is kept"
        warnings = [fast_dev_report.warning_of_idle_parameters(idle)] if idle else []
        for line in [*fast_dev_report.report_lines(title, facts), *warnings, passed]:
            trainer.print_to_log_file(line, add_timestamp=False)


@contextmanager
def temporary_results() -> Iterator[Path]:
    """Creates a temporary folder and points `nnUNet_results` to its subfolder `results` within the block.

    Inside the block, batches are made in this process and external loggers are disabled.
    """
    with tempfile.TemporaryDirectory(prefix="nnUNet_fast_dev_run_", ignore_cleanup_errors=True) as folder:
        changes = {"nnUNet_results": os.path.join(folder, "results")}
        changes |= {"nnUNet_n_proc_DA": "0", "nnUNet_wandb_enabled": "0", "nnUNet_tensorboard_enabled": "0"}
        before = {name: os.environ[name] for name in changes if name in os.environ}
        os.environ.update(changes)
        try:
            yield Path(folder)
        finally:
            for name in changes.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


def make_trainer_of(run: TrainingRun) -> nnUNetTrainer:
    """Creates the trainer of a run; on the CPU with batches that train within seconds."""
    trainer_class, device = find_by_name("trainer", run.trainer_name), torch.device(run.device_type)
    if device.type == "cpu":
        trainer_class = with_small_batches(trainer_class)
    arguments = (run.dataset, run.configuration, run.fold, run.plans_identifier)
    trainer = make_trainer(trainer_class, *arguments, device=device, trainer_kwargs=run.trainer_kwargs)
    if run.seed is not None:
        trainer.seed = run.seed
    augment_on(trainer, run.augmentation_device)
    trainer.split_rule = run.split_rule
    trainer.keep_to_budget(run.budget)
    return trainer


def redirect(trainer: nnUNetTrainer, results: Path, scratch: Path) -> None:
    """Makes a trainer read the inputs of the real training, but write only below `scratch`.

    Args:
        results: the real results folder, which was replaced by `scratch / "results"` when the trainer was created.

    Raises:
        UsageError: the real model folder contains folds of another architecture, or the trainer uses its own folder.
    """
    model = real_counterpart(trainer.output_folder_base, results, scratch)
    require_same_architecture(str(model), trainer.configuration_name, trainer.configuration_manager)
    if trainer.folder_with_segs_from_previous_stage is not None:
        previous = real_counterpart(trainer.folder_with_segs_from_previous_stage, results, scratch)
        trainer.folder_with_segs_from_previous_stage = str(previous)
    trainer.disable_checkpointing = False  # prediction needs a checkpoint
    # A training without splits writes them next to the plans. If they stayed, they would lack cases that are added
    # before the real training.
    copy = scratch / "preprocessed"
    copy.mkdir()
    for entry in os.scandir(trainer.preprocessed_dataset_folder_base):
        if entry.is_file():
            shutil.copyfile(entry.path, copy / entry.name)
    trainer.preprocessed_dataset_folder_base = str(copy)


def real_counterpart(folder: str, results: Path, scratch: Path) -> Path:
    """Maps a folder below the temporary results to the real results folder.

    Raises:
        UsageError: the folder is not below the temporary results.
    """
    temporary = scratch / "results"
    if not Path(folder).is_relative_to(temporary):
        raise UsageError(f"The trainer uses {folder}; --fast_dev_run can only try trainers that stay in nnUNet_results")
    return results / Path(folder).relative_to(temporary)


def shorten(trainer: nnUNetTrainer) -> TrainingLength:
    """Initialises a trainer with its full length, then shortens it to one or two steps; returns the full length."""
    if not trainer.was_initialized:
        trainer.initialize()
    length = TrainingLength(trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch)
    num_steps = 2 if batch_of(trainer) == planned_batch_of(trainer) else 1
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, num_steps, num_steps
    trainer._best_ema = math.inf  # no epoch is better, so only one checkpoint is written
    trainer.dataset_class = as_it_is(trainer.dataset_class or infer_dataset_class(trainer.preprocessed_dataset_folder))
    return length


def as_it_is(dataset_class: type[nnUNetBaseDataset]) -> type[nnUNetBaseDataset]:
    """Returns a subclass without the unpacking of all cases, which takes long and writes to their folder."""

    class AsItIs(dataset_class):
        @staticmethod
        def unpack_dataset(*args: object, **kwargs: object) -> None:
            return

    return AsItIs


def forget_network(trainer: nnUNetTrainer) -> None:
    """Frees memory that a separate prediction process would not share."""
    trainer.network = trainer.optimizer = trainer.lr_scheduler = trainer.loss = None
    empty_cache(trainer.device)


def predict(trainer: nnUNetTrainer, references: Path, stopwatch: Stopwatch, npz: bool) -> str:
    """Predicts a validation case, or as much of it as takes a few seconds, with the checkpoint on disk."""
    started = time.monotonic()
    predictor = fast_dev_prediction.load_predictor(trainer)
    case = fast_dev_prediction.smallest_case(trainer)
    seconds_per_patch = stopwatch.last("validate") / trainer.batch_size
    predicted = fast_dev_prediction.predict_one_case(
        predictor,
        case,
        references,
        Path(trainer.output_folder, "predicted"),
        most_patches=_SECONDS_FOR_A_CASE / seconds_per_patch,
        npz=npz,
    )
    return f"{time.monotonic() - started:.1f} s for {fast_dev_report.describe_case(predicted)}"

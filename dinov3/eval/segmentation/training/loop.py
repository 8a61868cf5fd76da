"""The training loop of all heads."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dinov3.eval.segmentation.data.batches import batches_of
from dinov3.eval.segmentation.data.dataset import dataset_of
from dinov3.eval.segmentation.data.labels import SemanticToM2FTargets
from dinov3.eval.segmentation.eval import evaluate_on_validation_set
from dinov3.eval.segmentation.models import FeatureDecoder
from dinov3.eval.segmentation.schedulers import build_scheduler
from dinov3.eval.segmentation.training.checkpoint import (
    CHECKPOINT_LATEST,
    CHECKPOINT_PREVIOUS,
    TrainingState,
    checkpoint_to_resume,
    restore_checkpoint,
    write_checkpoint,
)
from dinov3.eval.segmentation.training.ema import ExponentialMovingAverage, averaged_weights
from dinov3.eval.segmentation.training.log import TRAINING_LOG, LossAverages, TrainingLog
from dinov3.eval.segmentation.training.model_state import trained_state
from dinov3.eval.segmentation.training.run_folder import CONFIG_FILE
from dinov3.eval.segmentation.training.saved_model import MODEL_BEST, MODEL_FINAL, write_model
from dinov3.eval.segmentation.training.setup import build_optimizer, distribute, training_device
from dinov3.eval.segmentation.training.step import StepResult
from dinov3.utils.atomic_files import remove_interrupted_writes
from dinov3.utils.divergence import DivergenceGuard
from dinov3.utils.errors import PreemptedError, UsageError
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.precision import tensor_cores_for_float32
from dinov3.utils.processes import stop_signals
from dinov3.utils.processes.process_group import gather, rank_and_world_size, wait_for_all
from dinov3.utils.yaml_config import plain_config, save_config

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig

logger = logging.getLogger(__name__)

LOG_INTERVAL = 50  # iterations, as in Meta's trainer

TrainStep = Callable[..., StepResult]
"""`train.train_step`, `train_m2f.train_step_m2f` or another function with the same arguments."""


def train_model(
    model: FeatureDecoder,
    config: SegmentationConfig,
    train_step: TrainStep,
    criterion: nn.Module,
    *,
    targets: SemanticToM2FTargets | None = None,
    log_interval: int = LOG_INTERVAL,
) -> dict[str, Any]:
    """Trains, evaluates and saves a model.

    The first process writes to `config.output_dir`: segmentation_config.yaml; checkpoint_latest.pth, from which
    `config.resume` resumes exactly; model_best.pth and model_final.pth, the trained weights (with `config.ema`, their
    average); training_log.jsonl.

    Args:
        model: Model in train mode, on the device of this process.
        config: All settings.
        train_step: Function that performs one update of the weights.
        criterion: Loss that is passed to `train_step`.
        targets: Converts each label map to masks, for models that are trained on masks.
        log_interval: Iterations between log lines.

    Returns:
        Metrics of the best evaluation by `config.metric_to_save`, see `SegmentationMetrics.compute`.

    Raises:
        UsageError: Settings contradict each other, or the checkpoint belongs to another training.
        DataError: An image, a label map or the checkpoint cannot be used.
        DivergedError: Too many consecutive steps had a non-finite loss or gradient.
        PreemptedError: A signal ended the training, whose state is saved.
    """
    if config.output_dir is None:
        raise UsageError("There is no folder to write to; set output_dir")
    total_iter, device = config.scheduler.total_iter, training_device(config)
    dataset_of(config, "val")  # fail now instead of at the first evaluation
    state = start_or_resume(model, config)
    batches = batches_of(
        config, state.iteration, targets, size_multiple=model.size_multiple, pin_memory=device.type == "cuda"
    )
    folder = _prepare_folder(config)
    log = TrainingLog(None if folder is None else folder / TRAINING_LOG, total_iter, state.iteration)
    precision = "fp32" if config.model_dtype.autocast_dtype == torch.float32 else "bf16"
    with tensor_cores_for_float32(precision, device), _saved_on_signals(state, config, folder) as vote:
        if not state.is_evaluated:
            _evaluate_and_save(state, config, folder, log)
        _train(state, config, folder, batches, train_step, criterion, log, vote, log_interval)
    if folder is not None:
        with averaged_weights(model, state.ema):
            write_model(model, plain_config(config), state.iteration, folder / MODEL_FINAL)
        (folder / CHECKPOINT_PREVIOUS).unlink(missing_ok=True)
    wait_for_all()
    return state.best


def _train(  # noqa: PLR0913 - the body of `train_model`
    state: TrainingState,
    config: SegmentationConfig,
    folder: Path | None,
    batches: Iterable[dict[str, Any]],
    train_step: TrainStep,
    criterion: nn.Module,
    log: TrainingLog,
    vote: stop_signals.StopVote,
    log_interval: int,
) -> None:
    total_iter, device = config.scheduler.total_iter, training_device(config)
    losses, guard = LossAverages(), DivergenceGuard()
    for batch in batches:
        lr = {group["name"]: group["lr"] for group in state.optimizer.param_groups}
        result = train_step(
            state.network,
            batch,
            device,
            None,
            state.optimizer,
            config.optimizer.gradient_clip,
            state.scheduler,
            criterion,
            config.model_dtype.autocast_dtype,
            state.iteration,
            guard=guard,
            seed=config.seed,
        )
        state.iteration += 1
        if state.ema is not None:
            state.ema.update(trained_state(unwrap(state.network)))
        losses.add(result.losses)
        if is_due(state.iteration, log_interval, total_iter):
            guard.settle()  # also at the end: the last iteration is always due
            log.step(state.iteration, losses.pop(), lr, result.gradient_norm)
        state.is_evaluated = not is_due(state.iteration, config.eval.eval_interval, total_iter)
        if vote.after_step():
            raise stop_signals.StopNow
        with log.paused():
            _evaluate_and_save(state, config, folder, log)


@contextmanager
def _saved_on_signals(
    state: TrainingState, config: SegmentationConfig, folder: Path | None
) -> Iterator[stop_signals.StopVote]:
    """Saves the state when a signal ends the training, after a step or within an evaluation."""
    with stop_signals.deferred(take_effect_at_end=False):
        try:
            yield stop_signals.StopVote()
        except stop_signals.StopNow:
            if folder is not None:
                write_checkpoint(state, plain_config(config), folder / CHECKPOINT_LATEST)
            wait_for_all()  # the first process to end makes the others end
            raise PreemptedError(
                f"Stopped by {stop_signals.requested() or 'a signal to another process'} after iteration "
                f"{state.iteration}, which is saved; config={_folder(config) / CONFIG_FILE} resume=true resumes it"
            ) from None


def start_or_resume(model: FeatureDecoder, config: SegmentationConfig) -> TrainingState:
    """Sets up a training; with `config.resume`, restores the latest checkpoint if there is one.

    Raises:
        UsageError: The checkpoint belongs to another training, or some processes did not find it.
        DataError: The checkpoint cannot be read.
    """
    optimizer = build_optimizer(model, config)
    schedule = config.scheduler
    scheduler = build_scheduler(
        schedule.type, optimizer, config.optimizer.lr, schedule.total_iter, schedule.constructor_kwargs
    )
    ema = ExponentialMovingAverage(trained_state(model), config.ema.decay) if config.ema.enabled else None
    state = TrainingState(distribute(model, config), optimizer, scheduler, ema)
    latest = Path(config.output_dir) / CHECKPOINT_LATEST
    found = checkpoint_to_resume(config.output_dir) if config.resume else None
    if found is not None:
        restore_checkpoint(state, plain_config(config), found)
        logger.info("Resuming from iteration %d of %s", state.iteration, found)
    elif config.resume:
        logger.warning("resume=true, but there is no %s; the training starts anew", latest)
    elif latest.is_file():
        logger.warning("The training starts anew and will replace %s; resume=true would resume it", latest)
    if len(iterations := set(gather(state.iteration))) > 1:
        raise UsageError(
            f"The processes are at different iterations ({', '.join(map(str, sorted(iterations)))}): not all of them "
            f"found {latest}; give an output_dir that all machines share"
        )
    return state


def _evaluate_and_save(state: TrainingState, config: SegmentationConfig, folder: Path | None, log: TrainingLog) -> None:
    """Runs what is due after a step: evaluation and checkpoint."""
    total_iter = config.scheduler.total_iter
    if is_due(state.iteration, config.eval.eval_interval, total_iter):
        best = state.best
        try:
            with stop_signals.interruptible():
                results = evaluate_and_keep_best(state, config, folder)
        except stop_signals.StopNow:
            state.best = best  # the evaluation is repeated
            raise
        log.evaluation(state.iteration, results)
        state.is_evaluated = True
    if folder is not None and is_due(state.iteration, config.checkpoint_interval, total_iter):
        _is_written(lambda: write_checkpoint(state, plain_config(config), folder / CHECKPOINT_LATEST))


def _is_written(write: Callable[[], None]) -> bool:
    """Calls `write` for a file that is written again later; false if the disk is full or cannot be reached."""
    try:
        write()
    except OSError as err:
        logger.warning("%s. The training goes on and tries again when the file is due the next time", err)
        return False
    return True


def evaluate_and_keep_best(state: TrainingState, config: SegmentationConfig, folder: Path | None) -> dict[str, Any]:
    """Evaluates the weights, or their average; saves and records the best so far.

    Args:
        state: `best` is updated.
        config: All settings.
        folder: Folder for model_best.pth; None writes nothing.

    Returns:
        The metrics of this evaluation, see `SegmentationMetrics.compute`.
    """
    model = unwrap(state.network)
    with averaged_weights(model, state.ema):
        results = evaluate_on_validation_set(model, config, training_device(config))
        if is_better(results, state.best, config.metric_to_save):
            values = (model, plain_config(config), state.iteration)
            if folder is None or _is_written(lambda: write_model(*values, folder / MODEL_BEST)):
                state.best = results
    return results


def is_better(metrics: Mapping[str, Any], best: Mapping[str, Any], name: str) -> bool:
    """True if an evaluation beats the best so far; one with an undefined metric only beats no evaluation at all."""
    return not best or math.isnan(best[name]) or metrics[name] > best[name]


def is_due(iteration: int, interval: int, total_iter: int) -> bool:
    """True if a task that runs every `interval` iterations and at the end is due."""
    return iteration % interval == 0 or iteration == total_iter


def _prepare_folder(config: SegmentationConfig) -> Path | None:
    """Returns the output folder, with the configuration in it, for the first process; None for the others."""
    if rank_and_world_size()[0] != 0:
        return None
    folder = _folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    remove_interrupted_writes(folder, min_age=0)  # no other run writes into it
    save_config(config, folder / CONFIG_FILE)
    return folder


def _folder(config: SegmentationConfig) -> Path:
    return Path(str(config.output_dir))

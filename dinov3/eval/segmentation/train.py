"""Trains a linear head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dinov3.eval.segmentation.data.random_streams import seed_step
from dinov3.eval.segmentation.loss import MultiSegmentationLoss
from dinov3.eval.segmentation.training.loop import train_model
from dinov3.eval.segmentation.training.setup import build_model
from dinov3.eval.segmentation.training.step import StepResult, finish_step, forward_precision
from dinov3.utils.divergence import DivergenceGuard
from dinov3.utils.errors import UsageError
from dinov3.utils.processes.process_group import rank_and_world_size

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig


def train_segmentation(backbone: nn.Module, config: SegmentationConfig) -> dict[str, Any]:
    """Trains a linear head on a backbone.

    Args:
        backbone: Becomes part of the model and is modified: frozen, equipped with LoRA layers, or trained.
        config: Settings with `decoder_head.type` "linear"; see `train_model` for the files in its `output_dir`.

    Returns:
        Metrics of the best evaluation by `config.metric_to_save`, see `SegmentationMetrics.compute`.

    Raises:
        UsageError: The settings are invalid for this training.
        DataError: An image, a label map or the checkpoint cannot be used.
        DivergedError: Too many consecutive steps had a non-finite loss or gradient.
    """
    if config.decoder_head.type != "linear":
        raise UsageError(f"decoder_head.type={config.decoder_head.type} is not trained here; set it to linear")
    criterion = MultiSegmentationLoss(**vars(config.train))
    return train_model(build_model(backbone, config), config, train_step, criterion)


def train_step(
    segmentation_model: nn.Module,
    batch: Mapping[str, Tensor],
    device: torch.device | str,
    scaler: torch.amp.GradScaler | None,
    optimizer: torch.optim.Optimizer,
    optimizer_gradient_clip: float | None,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    criterion: MultiSegmentationLoss,
    model_dtype: torch.dtype | None,
    global_step: int,
    *,
    guard: DivergenceGuard,
    seed: int,
) -> StepResult:
    """One update of the weights.

    Args:
        segmentation_model: Model in train mode, possibly wrapped for distributed training.
        batch: `image` (B, 3, H, W) and `label` (B, H, W), see `training_batches`.
        device: Device of the model.
        scaler: For fp16; None otherwise.
        optimizer: Optimiser of the trained parameters.
        optimizer_gradient_clip: Maximum L2 norm of the gradient; None: no clipping.
        scheduler: Stepped once.
        criterion: Loss of (B, K, h, w) logits.
        model_dtype: bfloat16 or float16 runs the model, not the loss, under autocast.
        global_step: Completed iterations; with `seed` and the rank, it determines all random numbers of the step.
        guard: Counts skipped steps.
        seed: Seed of the training.

    Returns:
        Losses and gradient norm.

    Raises:
        DivergedError: Too many consecutive steps had a non-finite loss or gradient.
    """
    seed_step(seed, global_step, rank_and_world_size()[0])
    optimizer.zero_grad(set_to_none=True)
    image, label = (batch[key].to(device, non_blocking=True) for key in ("image", "label"))
    with forward_precision(device, model_dtype):
        logits = segmentation_model(image)
    terms = criterion.terms(logits, label)
    loss = criterion.total(terms)
    return finish_step(loss, terms, segmentation_model, scaler, optimizer, optimizer_gradient_clip, scheduler, guard)

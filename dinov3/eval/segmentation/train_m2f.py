"""Trains adapter and Mask2Former head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dinov3.eval.segmentation.data.labels import SemanticToM2FTargets
from dinov3.eval.segmentation.data.random_streams import generators_of_images, seed_step
from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.training.loop import train_model
from dinov3.eval.segmentation.training.setup import build_model
from dinov3.eval.segmentation.training.step import StepResult, finish_step, forward_precision
from dinov3.utils.divergence import DivergenceGuard
from dinov3.utils.errors import UsageError
from dinov3.utils.processes.process_group import rank_and_world_size

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig


def train_m2f_segmentation(backbone: nn.Module, config: SegmentationConfig) -> dict[str, Any]:
    """Trains adapter and Mask2Former head on a backbone.

    Args:
        backbone: Becomes part of the model and is modified: frozen, equipped with LoRA layers, or trained.
        config: Settings with `decoder_head.type` "m2f"; see `train_model` for the files in its `output_dir`.

    Returns:
        Metrics of the best evaluation by `config.metric_to_save`, see `SegmentationMetrics.compute`.

    Raises:
        UsageError: The settings are invalid for this training.
        DataError: An image, a label map or the checkpoint cannot be used.
        DivergedError: Too many consecutive steps had a non-finite loss or gradient.
    """
    if config.decoder_head.type != "m2f":
        raise UsageError(f"decoder_head.type={config.decoder_head.type} is not trained here; set it to m2f")
    num_classes = config.decoder_head.num_classes
    criterion = MaskClassificationLoss(num_classes, **vars(config.m2f_train))
    targets = SemanticToM2FTargets(num_classes)
    return train_model(build_model(backbone, config), config, train_step_m2f, criterion, targets=targets)


def train_step_m2f(
    segmentation_model: nn.Module,
    batch: Mapping[str, Any],
    device: torch.device | str,
    scaler: torch.amp.GradScaler | None,
    optimizer: torch.optim.Optimizer,
    optimizer_gradient_clip: float | None,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    criterion: MaskClassificationLoss,
    model_dtype: torch.dtype | None,
    global_step: int,
    *,
    guard: DivergenceGuard,
    seed: int,
) -> StepResult:
    """One update of the weights.

    The points at which an image's masks are compared are determined by `seed` and its `position`, independent of the
    number of processes that share the batch.

    Args:
        segmentation_model: Model in train mode, possibly wrapped for distributed training.
        batch: `image` (B, 3, H, W), `targets`, `valid` (B, H, W) and `position` (B,), see `training_batches`.
        device: Device of the model.
        scaler: For fp16; None otherwise.
        optimizer: Optimiser of the trained parameters.
        optimizer_gradient_clip: Maximum L2 norm of the gradient; None: no clipping.
        scheduler: Stepped once.
        criterion: Loss of the model's output dictionary.
        model_dtype: bfloat16 or float16 runs the model, not the loss, under autocast.
        global_step: Completed iterations; with `seed` and the rank, it determines dropout and stochastic depth.
        guard: Counts skipped steps.
        seed: Seed of the training.

    Returns:
        Losses and gradient norm.

    Raises:
        DivergedError: Too many consecutive steps had a non-finite loss or gradient.
    """
    seed_step(seed, global_step, rank_and_world_size()[0])
    optimizer.zero_grad(set_to_none=True)
    image, valid = (batch[key].to(device, non_blocking=True) for key in ("image", "valid"))
    targets = [
        {name: value.to(device, non_blocking=True) for name, value in target.items()} for target in batch["targets"]
    ]
    with forward_precision(device, model_dtype):
        outputs = segmentation_model(image)
    generators = generators_of_images(seed, batch["position"].tolist(), torch.device(device))
    terms = criterion(outputs, targets, valid, generators=generators)
    loss = criterion.total(terms)
    return finish_step(loss, terms, segmentation_model, scaler, optimizer, optimizer_gradient_clip, scheduler, guard)

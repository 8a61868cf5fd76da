"""Set-up of a training: model, trainable parameters and optimiser."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

from dinov3.eval.segmentation.models import FeatureDecoder, backbone_out_indices, build_segmentation_decoder
from dinov3.eval.segmentation.training.parameter_groups import parameter_groups
from dinov3.layers.lora import apply_lora, trainable_report
from dinov3.layers.synced_batch_norm import synchronise_batch_norm
from dinov3.utils.devices import resolve_device
from dinov3.utils.errors import UsageError
from dinov3.utils.processes.process_group import device_of_this_process, distribute_network, is_distributed

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig

logger = logging.getLogger(__name__)


def build_model(backbone: nn.Module, config: SegmentationConfig) -> FeatureDecoder:
    """Builds the segmentation model of a configuration on its device, in train mode.

    New weights are initialised from `config.seed`. The backbone becomes part of the model: it is frozen, gets LoRA
    layers (`config.lora.enabled`), or is fully trained (`config.train_backbone`).

    Raises:
        UsageError: No model can be built with these settings.
    """
    head, lora = config.decoder_head, config.lora
    torch.manual_seed(config.seed)
    try:
        if lora.enabled:
            apply_lora(backbone, lora.r, lora.lora_alpha, lora.lora_dropout, tuple(lora.target_modules))
        elif config.train_backbone:
            backbone.requires_grad_(True)
        model = build_segmentation_decoder(
            backbone,
            autocast_dtype=config.model_dtype.autocast_dtype,
            lora_enabled=lora.enabled,
            freeze_backbone=not config.train_backbone,
            **head.arguments(),
        )
    except ValueError as err:
        raise UsageError(str(err)) from err
    logger.info("%s head: %s", head.type, trainable_report(model))
    return model.to(training_device(config)).train()


def training_device(config: SegmentationConfig) -> torch.device:
    """Returns the device of this process.

    Raises:
        UsageError: The machine does not have the device.
    """
    return device_of_this_process(resolve_device(config.device, "device="))


def distribute(model: FeatureDecoder, config: SegmentationConfig) -> nn.Module:
    """Wraps the model for distributed training; returns it unchanged for a single process."""
    if not is_distributed():
        return model
    device = training_device(config)
    model = synchronise_batch_norm(model, device)
    return distribute_network(model, device, find_unused_parameters=_has_idle_parameters(model.backbone, config))


def _has_idle_parameters(backbone: nn.Module, config: SegmentationConfig) -> bool:
    """True if some trained parameters may not affect the features, which DDP must know.

    A fully trained backbone has parameters that only pretraining uses; LoRA layers may follow the last block that is
    read.
    """
    if not config.lora.enabled:
        return config.train_backbone
    num_blocks = len(backbone.blocks)
    return max(backbone_out_indices(num_blocks, config.decoder_head.backbone_out_layers)) < num_blocks - 1


def build_optimizer(model: FeatureDecoder, config: SegmentationConfig) -> torch.optim.AdamW:
    """Builds AdamW without weight decay of norms, biases and embeddings; a fully trained backbone has a lower rate."""
    settings = config.optimizer
    slower = settings.backbone_lr_multiplier if config.train_backbone else 1.0
    groups = parameter_groups(
        model,
        model.backbone,
        lr=settings.lr,
        backbone_lr=slower * settings.lr,
        weight_decay=settings.weight_decay,
    )
    fused = next(model.parameters()).device.type == "cuda"
    return torch.optim.AdamW(groups, settings.lr, betas=(settings.beta1, settings.beta2), fused=fused)

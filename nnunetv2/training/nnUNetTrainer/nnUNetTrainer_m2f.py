"""Trains DINOv3 + Mask2Former in nnU-Net's pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.parameter_groups import parameter_groups
from dinov3.eval.segmentation.schedulers import WarmupOneCycleLR, WarmupPolyLR
from dinov3.layers.lora import trainable_report
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.yaml_config import save_config
from nnunetv2.model.backbone_weights import find_weights
from nnunetv2.model.model_m2f import MASK_STRIDE, dense_logits
from nnunetv2.training.flat_configuration import require_flat_configuration, require_intensities_for
from nnunetv2.training.mask_targets import mask_targets
from nnunetv2.training.nnUNetTrainer.m2f_config import CONFIG_FILE, M2FnnUNetConfig, load_m2f_config
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_SCHEDULERS = {"WarmupOneCycleLR": WarmupOneCycleLR, "poly": WarmupPolyLR}
_SHORTEST_TRAINING_IN_WARMUPS = 10
_CUDA = torch.device("cuda")


class nnUNetTrainer_m2f(nnUNetTrainer):
    """nnU-Net's training with another network, loss and optimiser.

    Args:
        plans: content of a plans file.
        configuration: name of one of its 2-D configurations.
        fold: number of the split, or "all".
        dataset_json: content of the dataset's dataset.json.
        device: where to train.
        m2f_config_path: YAML file of settings (`m2f_config.py`); None: the defaults.
        m2f_overrides: `key=value` words that go before the file.

    Raises:
        UsageError: wrong settings, or a configuration that is 3-D or part of a cascade.
    """

    enable_deep_supervision = False  # nnU-Net's, with resized targets; Mask2Former has `supervise_all_layers`
    scheduler_step_per_iteration = True
    supervise_all_layers = True
    """compute the loss after every layer of the mask transformer, not after the last one alone"""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = _CUDA,
        m2f_config_path: str | None = None,
        m2f_overrides: Sequence[str] = (),
    ) -> None:
        self.m2f_config: M2FnnUNetConfig = load_m2f_config(m2f_config_path, m2f_overrides)
        self.dataset_json = dataset_json  # adapt_plans asks it for the kind of labels
        self._needs_backbone_weights = True
        super().__init__(plans, configuration, fold, dataset_json, device)
        self._take_over_settings()

    def _take_over_settings(self) -> None:
        """Sets what the settings say, except where a subclass says otherwise by a class attribute of its own."""
        training = self.m2f_config.training
        settings = {
            "initial_lr": training.lr,
            "weight_decay": training.weight_decay,
            "gradient_clip_norm": training.gradient_clip,
            "oversample_foreground_percent": training.oversample_foreground_percent,
            "num_epochs": training.epochs(),
            "num_iterations_per_epoch": training.num_iterations_per_epoch,
            "num_val_iterations_per_epoch": training.num_val_iterations_per_epoch,
            "save_every": training.save_every,
            "precision": training.precision_on(self.device.type),
        }
        subclasses = type(self).__mro__[: type(self).__mro__.index(nnUNetTrainer_m2f)]
        for name, value in settings.items():
            if not any(name in vars(subclass) for subclass in subclasses):
                setattr(self, name, value)

    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        manager = PlansManager(plans)
        require_flat_configuration(manager, configuration)
        require_intensities_for(self.m2f_config.model.input_norm, manager.get_configuration(configuration))
        regions = manager.get_label_manager(self.dataset_json).has_regions
        training = self.m2f_config.training
        changes = {"patch_size": training.patch_size, "batch_size": training.batch_size}
        changes["architecture"] = self.m2f_config.architecture(regions=regions)
        plans["configurations"][configuration].update(
            {key: value for key, value in changes.items() if value is not None}
        )
        return plans

    def initialize(self) -> None:
        weights = self._find_backbone_weights() if self._needs_backbone_weights else None
        super().initialize()
        network, model = unwrap(self.network), self.m2f_config.model
        if weights is not None:
            network.load_backbone_weights(weights)
        report = trainable_report(network)
        self.print_to_log_file(f"Backbone {model.backbone} {model.backbone_size}, tuning {model.tuning}: {report}")

    def _find_backbone_weights(self) -> Path | None:
        model = self.m2f_config.model
        return find_weights(
            model.backbone, model.backbone_size, pretrained=model.pretrained, checkpoint=model.checkpoint
        )

    def load_checkpoint(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        self._needs_backbone_weights = False  # the checkpoint holds the whole network
        super().load_checkpoint(filename_or_checkpoint)
        self.lr_scheduler.total_iter = self._num_iterations()  # a training made longer follows the longer schedule

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank == 0:
            save_config(self.m2f_config, Path(self.output_folder) / CONFIG_FILE)

    def parameter_groups(self) -> list[dict[str, Any]]:
        network, training = unwrap(self.network), self.m2f_config.training
        slower = training.backbone_lr_multiplier if self.m2f_config.model.tuning == "full" else 1.0
        return parameter_groups(
            network,
            network.backbone,
            lr=self.initial_lr,
            backbone_lr=slower * self.initial_lr,
            weight_decay=self.weight_decay,
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        training = self.m2f_config.training
        optimizer = torch.optim.AdamW(self.parameter_groups(), self.initial_lr, fused=self.device.type == "cuda")
        iterations = self._num_iterations()
        warmup = min(training.warmup_iters, iterations // _SHORTEST_TRAINING_IN_WARMUPS)
        return optimizer, _SCHEDULERS[training.scheduler](optimizer, iterations, warmup_iters=warmup)

    def _num_iterations(self) -> int:
        return self.num_epochs * self.num_iterations_per_epoch

    def _build_loss(self) -> MaskClassificationLoss:
        return MaskClassificationLoss(self.label_manager.num_segmentation_heads, **vars(self.m2f_config.m2f_train))

    def forward_loss(self, data: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Any]]:
        output = self.network(data, return_queries=True)
        if not self.supervise_all_layers:
            output = {**output, "aux_outputs": []}
        targets, valid = mask_targets(
            target,
            self.label_manager.num_segmentation_heads,
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            size=[MASK_STRIDE * side for side in output["pred_masks"].shape[-2:]],
        )
        return self.loss.total(self.loss(output, targets, valid)), output

    def dense_logits(self, output: dict[str, Any]) -> Tensor:
        return dense_logits(output, self.configuration_manager.patch_size, regions=self.label_manager.has_regions)

"""Trains DINOv3 + Mask2Former in nnU-Net's pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.utils.network_wrappers import unwrap
from nnunetv2.model.query_network import dense_logits
from nnunetv2.model.vit_network import padded_size
from nnunetv2.training.loss.mask_targets import mask_targets
from nnunetv2.training.nnUNetTrainer.m2f_config import M2FnnUNetConfig
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit

_CUDA = torch.device("cuda")


class nnUNetTrainer_m2f(nnUNetTrainer_vit):
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

    config_class = M2FnnUNetConfig
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
        settings = {"config_path": m2f_config_path, "overrides": m2f_overrides}
        super().__init__(plans, configuration, fold, dataset_json, device, **settings)

    @property
    def m2f_config(self) -> M2FnnUNetConfig:
        return self.config

    def _build_loss(self) -> MaskClassificationLoss:
        return MaskClassificationLoss(self.label_manager.num_segmentation_heads, **vars(self.config.m2f_train))

    def forward_loss(self, data: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Any]]:
        unwrap(self.network).set_training_progress(self.lr_scheduler.last_epoch / self._num_iterations())
        output = self.network(data, return_queries=True)
        if not self.supervise_all_layers:
            output = {**output, "aux_outputs": []}
        targets, valid = mask_targets(
            target,
            self.label_manager.num_segmentation_heads,
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            size=padded_size(data.shape[-2:], unwrap(self.network).image_multiple),
        )
        return self.loss.total(self.loss(output, targets, valid)), output

    def dense_logits(self, output: dict[str, Any]) -> Tensor:
        multiple = unwrap(self.network).image_multiple
        size, regions = self.configuration_manager.patch_size, self.label_manager.has_regions
        return dense_logits(output, size, multiple, regions=regions)

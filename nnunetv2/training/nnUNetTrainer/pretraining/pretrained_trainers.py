"""Trainers that start from nnssl's self-supervised checkpoints, on plans that name one in their `pretrain_info`.

All parameters are trained from the first epoch on. Some names promise what the trainers do not do, and stay as they
are, since commands and results folders use them: `PretrainedTrainer_adam__nomirroring` trains with SGD,
`PretrainedTrainer_smallerlr` has the rates of AdamW with SGD, and the batch size is 2 whatever the plans say.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import UsageError
from nnunetv2.pretraining.named_networks import network_of_plans
from nnunetv2.pretraining.nnssl_checkpoint import read_nnssl_checkpoint
from nnunetv2.pretraining.weight_transfer import Target, transfer_weights
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainer_warmup import nnUNetTrainer_warmup
from nnunetv2.utilities.plans_handling import plans_handler

_CUDA = torch.device("cuda")
_BATCH_SIZE = 2


def network_of(is_primus: bool) -> Callable[..., nn.Module]:
    """Returns the function that builds the planned network, as a trainer's `build_network_architecture`."""

    def build_network_architecture(
        plans_manager: plans_handler.PlansManager,
        configuration_manager: plans_handler.ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Builds the network with random weights; it has one output.

        Raises:
            UsageError: this trainer is not for such a network.
        """
        return network_of_plans(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            input_channels=num_input_channels,
            output_channels=num_output_channels,
            patch_size=configuration_manager.patch_size,
            is_primus=is_primus,
        )

    return build_network_architecture


class PretrainedTrainer(nnUNetTrainer_warmup):
    """Takes over encoder and stem of the checkpoint, which must fit the planned network; SGD.

    Attributes:
        fine_tuning_lr: learning rate after the warm-up, with a checkpoint in the plans.
        lr_from_scratch: the same without one.
        mirrors: augment by mirroring, in prediction too.
        adapts_weights: take over what fits a network of other depth and kernels.
        use_pretrained_weights: false: build the network alone.

    Raises:
        UsageError: the plans were not made for a checkpoint.
    """

    fine_tuning_lr: ClassVar[float] = 1e-3
    lr_from_scratch: ClassVar[float] = 1e-2
    weight_decay = 3e-5
    gradient_clip_norm = 12
    enable_deep_supervision = False
    mirrors: ClassVar[bool] = True
    adapts_weights: ClassVar[bool] = False
    use_pretrained_weights: bool = True

    build_network_architecture = staticmethod(network_of(is_primus=False))

    def __init__(
        self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device = _CUDA
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.adaptation_info = self.plans_manager.plans.get("pretrain_info")
        if self.adaptation_info is None:
            raise UsageError(
                f"{type(self).__name__} trains on plans that were made for a checkpoint, and "
                f"{self.plans_manager.plans_name} were not; make them by nnUNetv2_preprocess_like_nnssl or "
                f"nnUNetv2_plan_like_dynamic"
            )
        has_checkpoint = self.adaptation_info["checkpoint_path"] is not None
        self.initial_lr = self.fine_tuning_lr if has_checkpoint else self.lr_from_scratch

    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        plans["configurations"][configuration]["batch_size"] = _BATCH_SIZE
        return plans

    def initialize(self) -> None:
        super().initialize()
        path = self.adaptation_info["checkpoint_path"]
        if path is None or not self.use_pretrained_weights:
            self.print_to_log_file("No pre-trained weights are loaded: the network starts from random weights")
            return
        checkpoint, network = read_nnssl_checkpoint(os.path.abspath(path)), unwrap(self.network)
        target = Target(
            network.key_to_encoder,
            network.key_to_stem,
            getattr(network, "key_to_lpe", None),
            self.num_input_channels,
            tuple(self.configuration_manager.patch_size),
        )
        report = transfer_weights(network, target, checkpoint, adapts=self.adapts_weights)
        self.print_to_log_file(f"Pre-trained weights of {path}: {report}")

    def load_checkpoint(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        """Extends the base class: the whole network comes from the checkpoint of the training."""
        self.use_pretrained_weights = False
        super().load_checkpoint(filename_or_checkpoint)

    def get_stage(self) -> str:
        """Returns the stage of the current epoch: `warmup_all` or `train`."""
        return self.stage_of(self.current_epoch)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        *geometry, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = axes if self.mirrors else None
        return *geometry, self.inference_allowed_mirroring_axes


class PretrainedTrainer_150ep(PretrainedTrainer):
    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_300ep(PretrainedTrainer_150ep):
    num_epochs = 300


class PretrainedTrainer_smallerlr(PretrainedTrainer):
    fine_tuning_lr = 3e-5
    lr_from_scratch = 1e-4
    weight_decay = 5e-2


class PretrainedTrainer_nomirroring(PretrainedTrainer):
    mirrors = False


class PretrainedTrainer_150ep_nomirroring(PretrainedTrainer_150ep):
    mirrors = False


class PretrainedTrainer_adam__nomirroring(PretrainedTrainer):
    mirrors = False


class PretrainedTrainer_Primus(PretrainedTrainer):
    """AdamW, gradients clipped at 1; presets of Primus."""

    fine_tuning_lr = 1e-4
    lr_from_scratch = 3e-4
    weight_decay = 5e-2
    gradient_clip_norm = 1

    def make_optimizer(self) -> torch.optim.Optimizer:
        return adamw(self)


class PretrainedTrainer_Primus_150ep(PretrainedTrainer_Primus):
    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_adam_150ep(PretrainedTrainer_Primus):
    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_adam_150ep_nomirroring(PretrainedTrainer_adam_150ep):
    mirrors = False


class PretrainedTrainer_Primusx(PretrainedTrainer_Primus):
    """Primus of the size that the plans say."""

    build_network_architecture = staticmethod(network_of(is_primus=True))


class PretrainedTrainer_Primusx_150ep(PretrainedTrainer_Primusx):
    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_Primusx_30ep(PretrainedTrainer_Primusx):
    num_epochs = 30
    warmup_duration_whole_net = 3


class PretrainedTrainer_Primusx_300ep(PretrainedTrainer_Primusx):
    num_epochs = 300
    warmup_duration_whole_net = 15


class PretrainedTrainer_Primusx_smallerlr(PretrainedTrainer_Primusx):
    fine_tuning_lr = 3e-5
    lr_from_scratch = 1e-4


class PretrainedTrainer_Primusx_150ep_lr3e4(PretrainedTrainer_Primusx):
    fine_tuning_lr = 3e-4
    num_epochs = 150


class PretrainedTrainer_Primusx_150ep_small_debug(PretrainedTrainer_Primusx_150ep):
    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        plans["configurations"][configuration]["patch_size"] = [48, 48, 48]
        return super().adapt_plans(plans, configuration)


class PretrainedTrainer_Primusx_nomirroring(PretrainedTrainer_Primusx):
    mirrors = False


class PretrainedTrainer_Primusx_150ep_nomirroring(PretrainedTrainer_Primusx_150ep):
    mirrors = False


class DynamicPretrainedTrainer(PretrainedTrainer):
    """Adapts the weights to the network that nnU-Net planned."""

    adapts_weights = True


class DynamicPretrainedTrainer_nomirroring(DynamicPretrainedTrainer):
    mirrors = False


class DynamicPretrainedTrainer_adam_150ep(DynamicPretrainedTrainer):
    fine_tuning_lr = 1e-4
    lr_from_scratch = 3e-4
    num_epochs = 150
    warmup_duration_whole_net = 15

    def make_optimizer(self) -> torch.optim.Optimizer:
        return adamw(self)


class DynamicPretrainedTrainer_adam_150ep_nomirroring(DynamicPretrainedTrainer_adam_150ep):
    mirrors = False


def adamw(trainer: nnUNetTrainer_warmup) -> torch.optim.AdamW:
    """Makes the optimiser of the trainers that do not use SGD."""
    return torch.optim.AdamW(
        trainer.parameter_groups(),
        trainer.initial_lr,
        weight_decay=trainer.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )

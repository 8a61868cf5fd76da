"""Trainers of Primus, a transformer for 3-D patches whose tokens are blocks of 8 x 8 x 8 voxels.

Source: Wald et al., "Primus: Enforcing attention usage for 3D medical image segmentation", arXiv 2503.01835.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainer_warmup import nnUNetTrainer_warmup
from nnunetv2.utilities.plans_handling import plans_handler

_BLOCK = (8, 8, 8)  # voxels of one token


def primus(class_name: str | None) -> Callable[..., nn.Module]:
    """Returns the function that builds a Primus for a configuration, as a trainer's `build_network_architecture`.

    Args:
        class_name: class in `dynamic_network_architectures.architectures.primus`; S, B, M and L have 12, 12, 16 and 24
            blocks of 396, 792, 864 and 1056 features. None: the function raises an error that asks for a concrete
            trainer.
    """

    def build_network_architecture(
        plans_manager: plans_handler.PlansManager,
        configuration_manager: plans_handler.ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Builds the network with random weights; it has one output.

        Raises:
            UsageError: the patch size is not divisible into blocks, or the network is not installed.
        """
        if class_name is None:
            raise UsageError("AbstractPrimus names no network; train nnUNet_Primus_M_Trainer or another size")
        patch_size = tuple(configuration_manager.patch_size)
        _require_blocks(patch_size)
        return _network_class(class_name)(
            num_input_channels,
            num_output_channels,
            patch_embed_size=_BLOCK,
            input_shape=patch_size,
            drop_path_rate=0.2,
            scale_attn_inner=True,
            init_values=0.1,
        )

    return build_network_architecture


def _require_blocks(patch_size: Sequence[int]) -> None:
    if len(patch_size) != len(_BLOCK):
        raise UsageError(f"Primus is for patches of three axes, the plans say {list(patch_size)}; train 3d_fullres")
    if any(side % block for side, block in zip(patch_size, _BLOCK, strict=True)):
        larger = [-(-side // block) * block for side, block in zip(patch_size, _BLOCK, strict=True)]
        raise UsageError(
            f"Primus needs a patch size that {_BLOCK[0]} divides, the plans say {list(patch_size)}; "
            f"set patch_size in the plans, for example to {larger}"
        )


def _network_class(name: str) -> type[nn.Module]:
    try:
        from dynamic_network_architectures.architectures import primus as networks

        return getattr(networks, name)
    except (ImportError, AttributeError) as err:
        raise UsageError(
            f"The network {name} could not be imported ({err}); install what it needs: "
            f'pip install -U "dynamic-network-architectures>=0.4.4" timm einops'
        ) from err


def _with(plans: dict, configuration: str, **changes: Any) -> dict:
    plans["configurations"][configuration].update(changes)
    return plans


class AbstractPrimus(nnUNetTrainer_warmup):
    """Base of the trainers of all sizes: AdamW, warm-up, gradient clipping at 1, one output."""

    initial_lr = 3e-4
    weight_decay = 5e-2
    gradient_clip_norm = 1
    enable_deep_supervision = False

    build_network_architecture = staticmethod(primus(None))

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.parameter_groups(), self.initial_lr, weight_decay=self.weight_decay, betas=(0.9, 0.98), fused=True
        )


class nnUNet_Primus_S_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusS"))


class nnUNet_Primus_B_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusB"))


class nnUNet_Primus_M_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusM"))


class nnUNet_Primus_L_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusL"))


class nnUNet_PrimusV2S_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV2S"))


class nnUNet_PrimusV2B_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV2B"))


class nnUNet_PrimusV2M_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV2M"))


class nnUNet_PrimusV2L_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV2L"))


class nnUNet_PrimusV3S_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV3S"))


class nnUNet_PrimusV3B_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV3B"))


class nnUNet_PrimusV3M_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV3M"))


class nnUNet_PrimusV3L_Trainer(AbstractPrimus):
    build_network_architecture = staticmethod(primus("PrimusV3L"))


class nnUNet_Primus_M_Trainer_BS8(nnUNet_Primus_M_Trainer):
    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        return _with(plans, configuration, batch_size=8)


class nnUNet_Primus_M_Trainer_BS8_2e4(nnUNet_Primus_M_Trainer_BS8):
    initial_lr = 2e-4


class nnUNet_Trainer_BS8(nnUNetTrainer):
    """The default training with eight samples per batch, as baseline."""

    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        return _with(plans, configuration, batch_size=8)


class _Primus_S_96_BS1(nnUNet_Primus_S_Trainer):
    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        return _with(plans, configuration, batch_size=1, patch_size=[96, 96, 96])


class _Primus_B_96_BS1(nnUNet_Primus_B_Trainer):
    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        return _with(plans, configuration, batch_size=1, patch_size=[96, 96, 96])


class _Primus_M_96_BS1(nnUNet_Primus_M_Trainer):
    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        return _with(plans, configuration, batch_size=1, patch_size=[96, 96, 96])


class _Primus_L_48_BS1(nnUNet_Primus_L_Trainer):
    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        return _with(plans, configuration, batch_size=1, patch_size=[48, 48, 48])

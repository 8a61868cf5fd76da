"""The default training with batch normalisation instead of instance normalisation."""

from __future__ import annotations

from torch import nn

from nnunetv2.errors import UsageError
from nnunetv2.model.build import build_network
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling import plans_handler


class nnUNetTrainerBN(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(
        plans_manager: plans_handler.PlansManager,
        configuration_manager: plans_handler.ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        arguments = configuration_manager.network_arch_init_kwargs
        if "norm_op" not in arguments:
            raise UsageError(
                f"nnUNetTrainerBN replaces the argument norm_op of the plans' network, and "
                f"{configuration_manager.network_arch_class_name} has none; use plans with a U-Net of nnU-Net"
            )
        batch_norm = {
            "norm_op": f"torch.nn.BatchNorm{len(configuration_manager.patch_size)}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        }
        return build_network(
            configuration_manager.network_arch_class_name,
            {**arguments, **batch_norm},
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            deep_supervision=enable_deep_supervision,
        )

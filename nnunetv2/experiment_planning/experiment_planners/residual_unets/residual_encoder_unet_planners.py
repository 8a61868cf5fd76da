"""Planners for U-Nets with a residual encoder, for three sizes of GPU memory."""

from __future__ import annotations

import logging
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.feature_map_size import RESIDUAL_ENCODER_UNET

logger = logging.getLogger(__name__)

_SAME_PREPROCESSING = ("2d", "3d_fullres")  # same as in the default plans, whose preprocessed cases are reused


class ResEncUNetPlanner(ExperimentPlanner):
    """As `ExperimentPlanner`, with `ResidualEncoderUNet` as network."""

    default_plans_name = "nnUNetResEncUNetPlans"
    UNet_class = RESIDUAL_ENCODER_UNET
    UNet_reference_val_2d = 135_000_000
    UNet_reference_val_3d = 680_000_000
    UNet_blocks_per_stage_encoder = (1, 3, 4) + (6,) * 10
    UNet_blocks_per_stage_decoder = (1,) * 12
    encoder_depth_key = "n_blocks_per_stage"

    def generate_data_identifier(self, configuration_name: str) -> str:
        plans_name = "nnUNetPlans" if configuration_name in _SAME_PREPROCESSING else self.plans_identifier
        return f"{plans_name}_{configuration_name}"

    def patch_is_too_large(self, estimate: int, reference: float, reference_batch_size: int) -> bool:
        """True if a single sample exceeds the reference, independent of the reference batch size."""
        return estimate > reference

    def plan_experiment(self) -> dict[str, Any]:
        if self.UNet_vram_target_GB != self.UNet_reference_val_corresp_GB:
            logger.warning(
                "%s is made for %g GB of GPU memory, and plans for %g GB; give these plans a name of their own",
                type(self).__name__,
                self.UNet_reference_val_corresp_GB,
                self.UNet_vram_target_GB,
            )
        return super().plan_experiment()


class nnUNetPlannerResEncM(ResEncUNetPlanner):
    """For GPUs with 9 to 11 GB; batches are not limited by the size of the dataset."""

    default_plans_name = "nnUNetResEncUNetMPlans"
    max_dataset_covered = 1


class nnUNetPlannerResEncL(ResEncUNetPlanner):
    """For GPUs with 24 GB."""

    default_plans_name = "nnUNetResEncUNetLPlans"
    max_dataset_covered = 1
    UNet_reference_val_corresp_GB = 24
    UNet_reference_val_2d = 380_000_000
    UNet_reference_val_3d = 2_100_000_000


class nnUNetPlannerResEncXL(ResEncUNetPlanner):
    """For GPUs with 40 GB."""

    default_plans_name = "nnUNetResEncUNetXLPlans"
    max_dataset_covered = 1
    UNet_reference_val_corresp_GB = 40
    UNet_reference_val_2d = 560_000_000
    UNet_reference_val_3d = 3_600_000_000

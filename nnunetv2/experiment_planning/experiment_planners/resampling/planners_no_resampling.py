"""A planner without resampling: images keep their own voxel grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
)


class nnUNetPlannerResEncL_noResampling(nnUNetPlannerResEncL):
    """As `nnUNetPlannerResEncL`, but nothing is ever resampled.

    A `3d_lowres` configuration may still be planned; its images have full resolution.
    """

    default_plans_name = "nnUNetResEncUNetLPlans_noResampling"

    def generate_data_identifier(self, configuration_name: str) -> str:
        return f"{self.plans_identifier}_{configuration_name}"

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict, Callable, dict]:
        from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack

        return no_resampling_hack, {}, no_resampling_hack, {}

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict]:
        from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack

        return no_resampling_hack, {}

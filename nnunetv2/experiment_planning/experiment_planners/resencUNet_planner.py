"""Upstream's import path; the code is in `nnunetv2.experiment_planning.experiment_planners.residual_unets`."""

from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner,
)

__all__ = ["ResEncUNetPlanner"]

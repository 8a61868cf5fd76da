"""Upstream's older home of `ResEncUNetPlanner`."""

from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    ResEncUNetPlanner as ResEncUNetPlanner,
)

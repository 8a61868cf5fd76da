"""Planners with linear resampling of images, segmentations and scores by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
)

_NEVER_APART = {"force_separate_z": False, "memefficient_seg_resampling": False}
_APART_IF_ANISOTROPIC = {
    "force_separate_z": None,
    "memefficient_seg_resampling": False,
    "separate_z_anisotropy_threshold": ANISO_THRESHOLD,
}


def _by_torch(settings: dict[str, Any], *, is_seg: bool) -> tuple[Callable, dict[str, Any]]:
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

    return resample_torch_fornnunet, {"is_seg": is_seg, **settings}


class nnUNetPlannerResEncL_torchres(nnUNetPlannerResEncL):
    """As `nnUNetPlannerResEncL`; all axes are resampled together."""

    default_plans_name = "nnUNetResEncUNetLPlans_torchres"
    torch_resampling = _NEVER_APART

    def generate_data_identifier(self, configuration_name: str) -> str:
        return f"{self.plans_identifier}_{configuration_name}"

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict, Callable, dict]:
        return *_by_torch(self.torch_resampling, is_seg=False), *_by_torch(self.torch_resampling, is_seg=True)

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict]:
        return _by_torch(self.torch_resampling, is_seg=False)


class nnUNetPlannerResEncL_torchres_sepz(nnUNetPlannerResEncL_torchres):
    """As `nnUNetPlannerResEncL`; a much coarser axis is resampled separately from the others."""

    default_plans_name = "nnUNetResEncUNetLPlans_torchres_sepz"
    torch_resampling = _APART_IF_ANISOTROPIC


class nnUNetPlanner_torchres(ExperimentPlanner):
    """As `ExperimentPlanner`; all axes are resampled together."""

    default_plans_name = "nnUNetPlans_torchres"

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict, Callable, dict]:
        return *_by_torch(_NEVER_APART, is_seg=False), *_by_torch(_NEVER_APART, is_seg=True)

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> tuple[Callable, dict]:
        return _by_torch(_NEVER_APART, is_seg=False)

"""Plans for U-Nets with a residual encoder, in three sizes of GPU memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.feature_map_size import RESIDUAL_ENCODER_UNET

logger = logging.getLogger(__name__)

_SAME_PREPROCESSING = ("2d", "3d_fullres")  # as in the default plans, whose preprocessed cases are used


class ResEncUNetPlanner(ExperimentPlanner):
    """As `ExperimentPlanner`, with `ResidualEncoderUNet` as network."""

    UNet_class = RESIDUAL_ENCODER_UNET
    UNet_reference_val_2d = 135_000_000
    UNet_reference_val_3d = 680_000_000
    UNet_blocks_per_stage_encoder = (1, 3, 4) + (6,) * 10
    UNet_blocks_per_stage_decoder = (1,) * 12
    encoder_depth_key = "n_blocks_per_stage"

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetResEncUNetPlans",
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )

    def generate_data_identifier(self, configuration_name: str) -> str:
        plans_name = "nnUNetPlans" if configuration_name in _SAME_PREPROCESSING else self.plans_identifier
        return f"{plans_name}_{configuration_name}"

    def patch_is_too_large(self, estimate: int, reference: float, reference_batch_size: int) -> bool:
        """Whether one sample alone takes more than the reference, whatever batch size that was measured with."""
        return estimate > reference


class _SizedResEncPlanner(ResEncUNetPlanner):
    """A planner whose reference network was measured on one size of GPU; the batch size is not capped by the data."""

    max_dataset_covered = 1

    def _warn_of_other_memory_target(self) -> None:
        if self.UNet_vram_target_GB != self.UNet_reference_val_corresp_GB:
            logger.warning(
                "%s is made for %g GB of GPU memory, and plans for %g GB; give these plans a name of their own",
                type(self).__name__,
                self.UNet_reference_val_corresp_GB,
                self.UNet_vram_target_GB,
            )


class nnUNetPlannerResEncM(_SizedResEncPlanner):
    """For GPUs with 9 to 11 GB."""

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetResEncUNetMPlans",
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self._warn_of_other_memory_target()


class nnUNetPlannerResEncL(_SizedResEncPlanner):
    """For GPUs with 24 GB."""

    UNet_reference_val_corresp_GB = 24
    UNet_reference_val_2d = 380_000_000
    UNet_reference_val_3d = 2_100_000_000

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 24,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetResEncUNetLPlans",
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self._warn_of_other_memory_target()


class nnUNetPlannerResEncXL(_SizedResEncPlanner):
    """For GPUs with 40 GB."""

    UNet_reference_val_corresp_GB = 40
    UNet_reference_val_2d = 560_000_000
    UNet_reference_val_3d = 3_600_000_000

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 40,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetResEncUNetXLPlans",
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self._warn_of_other_memory_target()

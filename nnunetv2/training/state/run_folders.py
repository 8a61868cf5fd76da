"""Where a training reads its cases and writes its model."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


@dataclass(frozen=True)
class RunFolders:
    """Folders of one fold; those below a root that is not set are None, as on machines that only predict."""

    dataset: str | None = None
    """of the dataset: plans, splits, gt_segmentations"""
    cases: str | None = None
    """of the configuration: its preprocessed cases"""
    model: str | None = None
    """of trainer, plans and configuration, with one folder per fold"""
    fold: str | None = None
    previous_stage: str | None = None
    """segmentations that the previous stage of a cascade made for this configuration; None outside cascades"""


def run_folders(trainer_name: str, plans: PlansManager, configuration: str, fold: int | str) -> RunFolders:
    """Names the folders of a fold below the roots in the environment; makes none of them."""
    manager = plans.get_configuration(configuration)
    dataset = cases = model = fold_folder = previous_stage = None
    if nnUNet_preprocessed.is_set():
        dataset = os.path.join(nnUNet_preprocessed, plans.dataset_name)
        cases = os.path.join(dataset, manager.data_identifier)
    if nnUNet_results.is_set():

        def model_folder(name: str) -> str:
            identifier = convert_trainer_plans_config_to_identifier(trainer_name, plans.plans_name, name)
            return os.path.join(nnUNet_results, plans.dataset_name, identifier)

        model = model_folder(configuration)
        fold_folder = os.path.join(model, f"fold_{fold}")
        if manager.previous_stage_name is not None:
            previous_stage = os.path.join(
                model_folder(manager.previous_stage_name), "predicted_next_stage", configuration
            )
    return RunFolders(dataset, cases, model, fold_folder, previous_stage)

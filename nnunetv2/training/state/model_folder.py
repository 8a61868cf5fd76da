"""Folders of a training, and the files of a model except weights."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dinov3.utils.atomic_files import remove_interrupted_writes, replace_when_complete, write_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

logger = logging.getLogger(__name__)

FINGERPRINT = "dataset_fingerprint.json"


@dataclass(frozen=True)
class RunFolders:
    """Folders of one fold; None below a root that is not set, as on machines that only predict."""

    dataset: str | None = None
    """folder of the dataset: plans, splits, gt_segmentations"""
    cases: str | None = None
    """folder of the configuration's preprocessed cases"""
    model: str | None = None
    """folder of trainer, plans and configuration, with one folder per fold"""
    fold: str | None = None
    previous_stage: str | None = None
    """segmentations by the previous stage of a cascade; None outside cascades"""


def run_folders(trainer_name: str, plans: PlansManager, configuration: str, fold: int | str) -> RunFolders:
    """Resolves the folders of a fold below the roots in the environment; creates none of them."""
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


def write_model_files(
    fold_folder: str, plans: dict[str, Any], dataset_json: dict[str, Any], preprocessed_folder: str
) -> None:
    """Writes plans.json and dataset.json and copies the dataset's fingerprint, for the record.

    Also removes temporary files of killed trainings from the fold: those of checkpoints are large.

    Args:
        fold_folder: created if missing; the files are written to its parent, which all folds share.
        preprocessed_folder: preprocessed folder of the dataset, with the fingerprint.
    """
    Path(fold_folder).mkdir(parents=True, exist_ok=True)
    model_folder = Path(fold_folder).parent
    remove_interrupted_writes(fold_folder, min_age=0)  # no other process trains this fold
    remove_interrupted_writes(model_folder)
    write_json(plans, model_folder / "plans.json")
    write_json(dataset_json, model_folder / "dataset.json")
    fingerprint = Path(preprocessed_folder) / FINGERPRINT
    if not fingerprint.is_file():
        logger.warning("%s is not there, so the model folder gets no copy of it", fingerprint)
        return
    with replace_when_complete(model_folder / FINGERPRINT) as temporary:
        shutil.copyfile(fingerprint, temporary)


def write_network_listing(network: nn.Module, fold_folder: str) -> None:
    """Writes layers, number of parameters and number of trained parameters to network_architecture.txt."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, requires_grad in sizes if requires_grad)
    with replace_when_complete(Path(fold_folder) / "network_architecture.txt") as temporary:
        temporary.write_text(f"{total} parameters, {trained} of them trained\n\n{network}\n", encoding="utf-8")

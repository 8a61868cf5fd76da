"""The files of a model folder that are not weights: what prediction needs beside them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from dinov3.utils.atomic_files import remove_interrupted_writes, replace_when_complete, write_json

logger = logging.getLogger(__name__)

FINGERPRINT = "dataset_fingerprint.json"


def write_model_files(
    fold_folder: str, plans: dict[str, Any], dataset_json: dict[str, Any], preprocessed_folder: str
) -> None:
    """Writes plans.json and dataset.json and copies the fingerprint of the dataset, for the record.

    Unfinished files of killed trainings are removed from the fold; those of checkpoints are as large as these.

    Args:
        fold_folder: made when it is not there; the files go into the folder above, which all folds share.
        preprocessed_folder: of the dataset; holds the fingerprint.
    """
    Path(fold_folder).mkdir(parents=True, exist_ok=True)
    remove_interrupted_writes(fold_folder)
    model_folder = Path(fold_folder).parent
    write_json(plans, model_folder / "plans.json")
    write_json(dataset_json, model_folder / "dataset.json")
    fingerprint = Path(preprocessed_folder) / FINGERPRINT
    if not fingerprint.is_file():
        logger.warning("%s is not there, so the model folder gets no copy of it", fingerprint)
        return
    with replace_when_complete(model_folder / FINGERPRINT) as temporary:
        shutil.copyfile(fingerprint, temporary)


def write_network_listing(network: nn.Module, fold_folder: str) -> None:
    """Writes the layers of a network into network_architecture.txt, and how many parameters it has and trains."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, requires_grad in sizes if requires_grad)
    with replace_when_complete(Path(fold_folder) / "network_architecture.txt") as temporary:
        temporary.write_text(f"{total} parameters, {trained} of them trained\n\n{network}\n", encoding="utf-8")

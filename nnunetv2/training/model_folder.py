"""The files of a model folder that are not weights: what prediction needs beside them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from nnunetv2.utilities.atomic_files import replace_when_complete, write_json

logger = logging.getLogger(__name__)

FINGERPRINT = "dataset_fingerprint.json"


def write_model_files(
    model_folder: Path, plans: dict[str, Any], dataset_json: dict[str, Any], preprocessed_folder: Path
) -> None:
    """Writes plans.json and dataset.json and copies the fingerprint of the dataset, for the record.

    Args:
        model_folder: made when it is not there.
        preprocessed_folder: of the dataset; holds the fingerprint.
    """
    model_folder.mkdir(parents=True, exist_ok=True)
    write_json(plans, model_folder / "plans.json")
    write_json(dataset_json, model_folder / "dataset.json")
    fingerprint = preprocessed_folder / FINGERPRINT
    if not fingerprint.is_file():
        logger.warning("%s is not there, so the model folder gets no copy of it", fingerprint)
        return
    with replace_when_complete(model_folder / FINGERPRINT) as temporary:
        shutil.copyfile(fingerprint, temporary)


def write_network_listing(network: nn.Module, path: Path) -> None:
    """Writes the layers of a network as text, with the numbers of all and of the trained parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, requires_grad in sizes if requires_grad)
    with replace_when_complete(path) as temporary:
        temporary.write_text(f"{total} parameters, {trained} of them trained\n\n{network}\n", encoding="utf-8")

"""What a training learns from, recorded in its checkpoints and compared when it is resumed.

The record is a flat dictionary of plain data by dotted key: the used configuration of the plans, labels and channels of
the dataset, the cases of the fold, and the settings of a trainer with a configuration file. Names of cases are hashed,
as checkpoints are shared.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dinov3.utils.config_layers import dotted_items
from nnunetv2.errors import UsageError
from nnunetv2.training.protocol.hashes import cases_description, rounded
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

RECORD = "trained_with"
"""key of the record in checkpoints"""

logger = logging.getLogger(__name__)

_OF_PLANS = ("transpose_forward", "label_manager", "foreground_intensity_properties_per_channel")
_OF_DATASET = ("channel_names", "labels", "regions_class_order")
# Last part of the keys that may change: length, intervals, memory, paths, and what only starts or describes a training.
_FREE = frozenset(
    {
        "num_epochs",
        "total_iter",
        "save_every",
        "num_val_iterations_per_epoch",
        "gradient_checkpointing",
        "pretrained",
        "checkpoint",
        "file",
        "sha256",
        "median_image_size_in_voxels",
    }
)
_SHOWN = 8
_ABSENT = "absent"
_HASH_DIGITS = 12


def record_of(
    plans: PlansManager,
    configuration: str,
    dataset_json: Mapping[str, Any],
    split: tuple[Sequence[str], Sequence[str]],
    settings: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Builds the record of a training.

    Args:
        split: identifiers of the training and validation cases.
        settings: settings of a trainer with a configuration file, by section.
    """
    dataset = {name: dataset_json[name] for name in _OF_DATASET if name in dataset_json}
    if plans.get_label_manager(dict(dataset_json)).has_regions:
        dataset["order_of_regions"] = list(dataset_json["labels"])  # the order of the network's outputs
    described = {
        "plans": {
            **{name: plans.plans[name] for name in _OF_PLANS if name in plans.plans},
            **plans.get_configuration(configuration).configuration,
        },
        "dataset": dataset,
        "split": {part: _cases(cases) for part, cases in zip(("train", "val"), split, strict=True)},
        "settings": settings or {},
    }
    items = dotted_items(rounded(described)).items()
    return {key: value for key, value in items if _is_of_dataset(key) or key.rpartition(".")[2] not in _FREE}


def _is_of_dataset(key: str) -> bool:
    return key.startswith("dataset.")


def _cases(identifiers: Sequence[str]) -> str:
    cases = cases_description(identifiers)
    return f"{cases['num_cases']} cases with hash {cases['sha256'][:_HASH_DIGITS]}"


def record_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists differing entries as `key: before -> now`.

    Of plans and settings, only entries of both are compared: other versions of the program have other defaults there.
    """
    return [
        f"{key}: {before.get(key, _ABSENT)} -> {now.get(key, _ABSENT)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, _ABSENT) != now.get(key, _ABSENT)
        if (key in before and key in now) or _is_of_dataset(key)
    ]


def require_same_training(content: Mapping[str, Any], now: Mapping[str, Any], source: str, *, allowed: bool) -> None:
    """Compares the record in a checkpoint with that of the training that resumes it.

    Args:
        content: checkpoint with a record.
        source: path of the checkpoint for messages.
        allowed: only warn of differences.

    Raises:
        UsageError: something differs.
    """
    set_by_command = {f"settings.training.{name}": value for name, value in content.get("budget", {}).items()}
    now = {key: set_by_command.get(key, value) for key, value in now.items()}  # is resumed with the checkpoint
    differences = record_differences(content[RECORD], now)
    if not differences:
        return
    rest = len(differences) - _SHOWN
    shown = "; ".join(differences[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    if not allowed:
        raise UsageError(
            f"The training in {source} was started with something else: {shown}. Set it back, start a new training "
            f"without --c, or go on with the change by --allow_config_change"
        )
    logger.warning("The training goes on with changes: %s", shown)

"""Ensures that all folds of a model folder have the same architecture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import head_config_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_ABSENT = "absent"
_HEAD = "arch_kwargs.head.name"
# Arguments that affect training only, not the weights' shapes or predictions; folds may differ in them,
# and in the content of a head's file. Heads declare further ones.
_TRAINING_ONLY = frozenset(
    {"gradient_checkpointing", "drop_path_rate", "lora_dropout", "slices_per_chunk", "file", "sha256"}
)


def require_same_architecture(model_folder: str, configuration: str, wanted: ConfigurationManager) -> None:
    """Rejects an architecture that differs from the folds already trained in `model_folder`.

    Prediction rebuilds one network for all folds from the folder's plans.json, so they must agree. If no fold has a
    checkpoint, any architecture is accepted and the training overwrites plans.json.

    Args:
        model_folder: holds plans.json and `fold_*`; may be absent.
        configuration: name in plans.json.
        wanted: configuration to train.

    Raises:
        UsageError: the architectures differ; the message lists every differing entry.
    """
    trained = trained_configuration(model_folder, configuration)
    if trained is None:
        return
    if differences := architecture_differences(trained["architecture"], wanted.configuration["architecture"]):
        raise UsageError(
            f"{model_folder} holds checkpoints of another architecture: {'; '.join(differences)}. Train with the same "
            f"settings, with another nnUNet_results, with plans of another name (-p), or move that folder away"
        )


def trained_configuration(model_folder: str | None, configuration: str) -> dict[str, Any] | None:
    """Returns the configuration of the plans that the folds of a model folder were trained with.

    None if no fold has a checkpoint, or the folder's plans do not have the configuration.
    """
    if model_folder is None:
        return None
    plans_file = Path(model_folder) / "plans.json"
    if not plans_file.is_file() or not any(plans_file.parent.glob("fold_*/checkpoint_*.pth")):
        return None
    plans = read_json(plans_file)
    if configuration not in plans.get("configurations", {}):
        return None
    return PlansManager(plans).get_configuration(configuration).configuration


def architecture_differences(trained: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Lists differing entries as `path.to.entry: trained there, wanted now`; values are compared as JSON."""
    there, now = (dict(_leaves(json.loads(json.dumps(section)))) for section in (trained, wanted))
    if there.get(_HEAD) != now.get(_HEAD):  # all settings of the heads differ then, which says nothing more
        there, now = ({_HEAD: leaves.get(_HEAD, _ABSENT)} for leaves in (there, now))
    ignored = _TRAINING_ONLY | _training_only_of_head(wanted)
    return [
        f"{path}: {there.get(path, _ABSENT)} there, {now.get(path, _ABSENT)} now"
        for path in sorted(there.keys() | now.keys())
        if path.rpartition(".")[2] not in ignored
        if there.get(path, _ABSENT) != now.get(path, _ABSENT)
    ]


def _training_only_of_head(section: Mapping[str, Any]) -> frozenset[str]:
    head = (section.get("arch_kwargs") or {}).get("head")
    return frozenset(head_config_class(head["name"]).training_only) if isinstance(head, dict) else frozenset()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value

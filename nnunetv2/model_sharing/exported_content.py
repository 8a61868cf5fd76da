"""What is changed in the files of a model on their way into an archive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.model_sharing.exported_files import SETTINGS_PATTERN
from nnunetv2.model_sharing.private_text import shareable_text, without_folders

_TRAINING_STATE = ("optimizer_state", "grad_scaler_state", "lr_scheduler_state")
_WITH_PATHS = ("init_args", "trainer_config")
_OF_THE_NETWORK_IN_TRAINING = ("debug.json", "network_architecture.txt", "network_architecture.pdf")


@dataclass(frozen=True)
class ContentChanges:
    """How the files of one model folder are changed."""

    plans: Mapping[str, Any]
    dataset_json: dict
    configuration: str
    private: Mapping[str, str]
    """folders to replace in texts, see `private_folders`"""
    merge_lora: bool
    """the network has LoRA adapters, which are merged; the state of the optimiser, which is theirs, goes too"""
    without_optimizer: bool

    def leaves_out(self, path: Path) -> bool:
        """Whether a file describes a network that is not exported, the one with adapters."""
        return self.merge_lora and path.name in _OF_THE_NETWORK_IN_TRAINING

    def text(self, path: Path) -> str | None:
        """What to store for a file other than a checkpoint; None for the file as it is."""
        if self.merge_lora and path.name == "plans.json":
            from nnunetv2.model_sharing.lora_merging import merged_plans

            return json.dumps(merged_plans(self.plans, self.configuration), indent=4)
        if self.merge_lora and path.match(SETTINGS_PATTERN):
            return without_folders(_merged_settings(path), self.private)
        return shareable_text(path, self.private)

    def checkpoint(self, path: Path) -> dict[str, Any] | None:
        """What to store for a checkpoint; None for the file as it is.

        Raises:
            DataError: the checkpoint is damaged, or does not fit the plans.
        """
        from nnunetv2.utilities.checkpoint_io import load_checkpoint  # imports torch

        content = load_checkpoint(path)
        described = {name: content[name] for name in _WITH_PATHS if name in content}
        shareable = without_folders(described, self.private)
        exported = {**content, **shareable}
        if self.merge_lora:
            from nnunetv2.model_sharing.lora_merging import merge_checkpoint

            exported = merge_checkpoint(exported, self.plans, self.dataset_json, str(path))
        if self.merge_lora or self.without_optimizer:
            exported = {name: value for name, value in exported.items() if name not in _TRAINING_STATE}
        is_same = exported.keys() == content.keys() and shareable == described
        return None if is_same and not self.merge_lora else exported


def _merged_settings(path: Path) -> str:
    from omegaconf import OmegaConf

    from nnunetv2.model_sharing.lora_merging import merged_settings

    return OmegaConf.to_yaml(OmegaConf.create(merged_settings(OmegaConf.to_container(OmegaConf.load(path)))))

"""The request of one call of `nnUNetv2_model_info`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2.errors import UsageError


@dataclass(frozen=True)
class InfoRequest:
    """Models of a dataset or in model folders, and the sizes and precision for which to compute their costs."""

    dataset: str | None
    configuration: str | None
    model_folders: tuple[Path, ...]
    trainers: tuple[str, ...]
    plans_identifier: str
    config_path: str | None
    overrides: tuple[str, ...]
    batch_size: int | None
    patch_size: tuple[int, ...] | None
    precision: str
    json_target: str | None

    def __post_init__(self) -> None:
        if bool(self.model_folders) == (self.dataset is not None):
            raise UsageError("Give either a dataset and a configuration, for example 4 2d, or model folders with -m")
        if self.dataset is not None and self.configuration is None:
            raise UsageError(f"Give the configuration too, for example: {self.dataset} 2d")
        if self.model_folders and (self.trainers or self.config_path or self.overrides):
            raise UsageError("A trained model has its trainer and settings; leave out -tr, --config and key=value")

"""Checkpoints: written while training, and exact resumption from them.

The random numbers of a step are determined by the seed and the iteration (`random_streams.py`), so no random state is
saved, and a resumed training draws the same numbers with any number of workers. With another number of processes, the
images stay the same if the global batch size does; dropout and stochastic depth do not.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinov3.eval.segmentation.training.ema import ExponentialMovingAverage
from dinov3.eval.segmentation.training.model_state import frozen_digest, load_trained_state, trained_state
from dinov3.utils.divergence import require_finite_parameters
from dinov3.utils.errors import DataError, UsageError
from dinov3.utils.fused_optimizers import with_own_implementation
from dinov3.utils.processes.process_group import rank_and_world_size
from dinov3.utils.tensor_files import read_tensors, require_intact, write_tensors
from dinov3.utils.yaml_config import dotted_items

logger = logging.getLogger(__name__)

CHECKPOINT_LATEST = "checkpoint_latest.pth"
CHECKPOINT_PREVIOUS = "checkpoint_latest.prev.pth"
"""the file that the latest checkpoint replaced"""

_KEYS = ("model", "backbone_digest", "optimizer", "scheduler", "ema", "iteration", "best", "config", "images_per_step")
_MAY_DIFFER = (
    "bs",  # images_per_step is compared instead
    "n_gpus",
    "num_workers",
    "device",
    "model",  # the digest of the backbone is compared instead
    "output_dir",
    "load_from",
    "resume",
    "datasets.root",
    "datasets.val",
    "datasets.class_names",
    "checkpoint_interval",
    "metric_to_save",
    "eval",
    "transforms.eval",
    "decoder_head.gradient_checkpointing",
)
_REDUCE_ZERO_LABEL = "eval.reduce_zero_label"  # also defines the meaning of the training labels
_SHOWN = 5


@dataclass
class TrainingState:
    """Everything that changes while a model is trained."""

    network: nn.Module
    """The model, possibly wrapped for distributed training."""
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    ema: ExponentialMovingAverage | None = None
    iteration: int = 0
    """Completed iterations."""
    best: dict[str, Any] = field(default_factory=dict)
    """Metrics of the best evaluation so far; empty before the first."""
    is_evaluated: bool = True
    """False if a signal came before the end of the evaluation that is due after this iteration."""


def write_checkpoint(state: TrainingState, config: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Saves everything that `restore_checkpoint` needs; the replaced file becomes `CHECKPOINT_PREVIOUS`.

    Args:
        config: The configuration as plain data.

    Raises:
        DivergedError: A parameter is not finite; the old file is kept.
        WriteError: The disk is full; the old file is kept.
    """
    require_finite_parameters(state.network)
    content = {
        "model": trained_state(state.network),
        "backbone_digest": frozen_digest(state.network),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "ema": None if state.ema is None else state.ema.state_dict(),
        "iteration": state.iteration,
        "best": state.best,
        "is_evaluated": state.is_evaluated,
        "config": dict(config),
        "images_per_step": _images_per_step(config),
    }
    write_tensors(content, path, previous=Path(path).with_name(CHECKPOINT_PREVIOUS), keeps_previous=True)


def checkpoint_to_resume(folder: str | os.PathLike) -> Path | None:
    """Returns the latest intact checkpoint of a run; None if there is none.

    Raises:
        DataError: There are checkpoints, and all are damaged.
    """
    damages: list[DataError] = []
    for path in (Path(folder) / CHECKPOINT_LATEST, Path(folder) / CHECKPOINT_PREVIOUS):
        if not path.is_file():
            continue
        try:
            require_intact(path)
            _read(path, lazily=zipfile.is_zipfile(path))
        except DataError as err:
            damages.append(err)
            continue
        for damage in damages:
            logger.warning("%s. The training resumes from %s", damage, path.name)
        return path
    if damages:
        raise DataError(f"{damages[0]}. Remove it to start anew, or put a whole one in its place")
    return None


def restore_checkpoint(state: TrainingState, config: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Restores a checkpoint into a training that was set up with the same configuration.

    Raises:
        UsageError: The configuration or the backbone differs; the message names the differences.
        DataError: The file is damaged or not a training checkpoint.
    """
    content = _read(path)
    differences = config_differences(content["config"], config)
    if content["images_per_step"] != _images_per_step(config):
        differences.append(f"images per step were {content['images_per_step']} and are {_images_per_step(config)}")
    if differences:
        raise UsageError(
            f"{path} belongs to a training with other settings: {'; '.join(differences[:_SHOWN])}"
            f"{f'; and {len(differences) - _SHOWN} more' if len(differences) > _SHOWN else ''}. Set them back to go on "
            f"with it, or choose another output_dir"
        )
    if content["backbone_digest"] != frozen_digest(state.network):
        raise UsageError(
            f"{path} belongs to a training with other backbone weights; give those it was begun with (model.dino_hub, "
            f"model.pretrained_weights), or choose another output_dir"
        )
    load_trained_state(state.network, content["model"], os.fspath(path))
    state.optimizer.load_state_dict(with_own_implementation(state.optimizer, content["optimizer"]))
    state.scheduler.load_state_dict(content["scheduler"])
    if state.ema is not None:
        state.ema.load_state_dict(content["ema"])
    state.iteration, state.best = content["iteration"], content["best"]
    state.is_evaluated = content.get("is_evaluated", True)


def config_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists the settings that affect training and differ between two configurations.

    Paths, evaluation settings and the distribution of work may differ.
    """
    old, new = dotted_items(before), dotted_items(now)
    return [
        f"{name} was {old.get(name)} and is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if not _may_differ(name) and old.get(name) != new.get(name)
    ]


def _may_differ(name: str) -> bool:
    return name != _REDUCE_ZERO_LABEL and any(name == free or name.startswith(f"{free}.") for free in _MAY_DIFFER)


def _images_per_step(config: Mapping[str, Any]) -> int:
    return config["bs"] * rank_and_world_size()[1]


def _read(path: str | os.PathLike, *, lazily: bool = False) -> dict[str, Any]:
    content = read_tensors(path, lazily=lazily)
    missing = [key for key in _KEYS if key not in content] if isinstance(content, dict) else list(_KEYS)
    if missing:
        raise DataError(f"{path} is no checkpoint that a training can go on from: it has no {', '.join(missing)}")
    return content

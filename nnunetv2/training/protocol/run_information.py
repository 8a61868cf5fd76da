"""Description of a training as plain data: the line of type `run` in `metrics.jsonl`."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nnunetv2
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.precision import resolve_precision
from dinov3.utils.processes.process_group import rank_and_world_size
from nnunetv2.training.protocol.conditions import Conditions, protocol_information

FORMAT = 1  # format version; incremented when a key changes its meaning
_LONGEST_WAIT_FOR_GIT = 5  # seconds


@dataclass(frozen=True)
class TrainingDescription:
    """Trainer, data and length of a training."""

    trainer: str
    """class name"""
    plans: str
    dataset: str
    configuration: str
    fold: int | str
    num_epochs: int
    num_iterations_per_epoch: int
    num_val_iterations_per_epoch: int
    batch_size: int
    """samples per training step over all processes"""
    patch_size: Sequence[int]
    """voxels per axis"""
    precision: str | None
    """fp32, bf16 or fp16; None: the device's default"""
    seed: int | None
    drawn_seed: int | None
    """the one that was drawn if there is no seed"""
    network: nn.Module
    device: torch.device
    conditions: Conditions


def run_information(training: TrainingDescription, started: str) -> dict[str, Any]:
    """Describes a training, this process and this machine; only the recorded command contains folders.

    Args:
        started: start date and time.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in unwrap(training.network).parameters()]
    return {
        "format": FORMAT,
        "started": started,
        "trainer": training.trainer,
        "plans": training.plans,
        "configuration": training.configuration,
        "fold": training.fold,
        "dataset": training.dataset,
        "num_epochs": training.num_epochs,
        "num_iterations_per_epoch": training.num_iterations_per_epoch,
        "num_val_iterations_per_epoch": training.num_val_iterations_per_epoch,
        "batch_size": training.batch_size,
        "patch_size": [int(size) for size in training.patch_size],
        "precision": resolve_precision(training.precision, training.device),
        "seed": training.seed,
        "drawn_seed": training.drawn_seed,
        "num_parameters": sum(size for size, _ in sizes),
        "num_trained_parameters": sum(size for size, is_trained in sizes if is_trained),
        "world_size": rank_and_world_size()[1],
        "device": training.device.type,
        "device_name": device_name(training.device),
        "version": _version(),
        "commit": commit_of(Path(nnunetv2.__file__).parents[1]),
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        **protocol_information(training.conditions),
    }


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor if the operating system reports it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _version() -> str | None:
    try:
        return metadata.version("nnunetv2")
    except metadata.PackageNotFoundError:
        return None


def commit_of(folder: Path) -> str | None:
    """Checked-out commit of a folder, with the suffix `-dirty` if files were modified; None if unknown."""
    if not (folder / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=_LONGEST_WAIT_FOR_GIT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()

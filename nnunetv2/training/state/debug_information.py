"""What a run was made of, as text for `debug.json`."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from dinov3.utils.atomic_files import write_json

_HYPER_PARAMETERS = (
    "initial_lr",
    "weight_decay",
    "momentum",
    "gradient_clip_norm",
    "oversample_foreground_percent",
    "probabilistic_oversampling",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "num_epochs",
    "enable_deep_supervision",
    "precision",
    "batch_size",
    "seed",
)


def hyper_parameters(trainer: Any) -> dict[str, Any]:
    """The settings of a training that are numbers, switches or names."""
    return {name: getattr(trainer, name) for name in _HYPER_PARAMETERS}


def write_debug_json(trainer: Any, fold_folder: str) -> None:
    """Writes into debug.json what `trainer`, its batch generators and this machine are, as text."""
    described = describe_object(trainer)
    for name in ("dataloader_train", "dataloader_val"):
        described |= describe_loader(name, getattr(trainer, name))
    write_json(described | describe_machine(trainer.device), Path(fold_folder) / "debug.json")


def describe_object(thing: Any) -> dict[str, str]:
    """Text of every attribute of `thing` that is not a method; networks and losses by class name and by layers."""
    described: dict[str, str] = {}
    for name in sorted(dir(thing)):
        if name.startswith("__"):
            continue
        value = getattr(thing, name)
        if name == "network":
            described[name] = type(value).__name__
        elif name == "loss" or not callable(value):
            described[name] = str(value)
    return described


def describe_loader(name: str, loader: Any) -> dict[str, str]:
    """Text of a batch generator: what it wraps, the number of worker processes and the transforms."""
    wrapped = getattr(loader, "generator", None) or getattr(loader, "data_loader", None)
    parts = {
        "generator": wrapped,
        "generator.transforms": getattr(wrapped, "transforms", None),
        "num_processes": getattr(loader, "num_processes", None),
        "transform": getattr(loader, "transform", None),
    }
    return {f"{name}.{part}": str(value) for part, value in parts.items() if value is not None}


def describe_machine(device: torch.device) -> dict[str, str]:
    """Host, device and the versions that results depend on."""
    described = {
        "hostname": platform.node(),
        "device": str(device),
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "cudnn_version": "None",
    }
    if device.type == "cuda":
        described["gpu_name"] = torch.cuda.get_device_name(device)
        described["cudnn_version"] = str(torch.backends.cudnn.version())
    return described

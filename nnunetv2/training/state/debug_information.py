"""Describes a run as text for `debug.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from dinov3.utils.atomic_files import write_json

HYPER_PARAMETERS = (
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
"""settings of a training that are numbers, flags or names"""


def write_debug_json(
    fold_folder: str, attributes: Mapping[str, str], loaders: Mapping[str, object], device: torch.device
) -> None:
    """Writes a text description of a training and this machine to debug.json.

    Args:
        attributes: attributes of the trainer, see `describe_object`.
        loaders: batch iterators by name.
    """
    described = dict(attributes)
    for name, loader in loaders.items():
        described |= describe_loader(name, loader)
    write_json(described | describe_machine(device), Path(fold_folder) / "debug.json")


def describe_object(thing: object) -> dict[str, str]:
    """Describes every attribute of `thing` except methods; networks and losses by class name and layers."""
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


def describe_loader(name: str, loader: object) -> dict[str, str]:
    """Describes a batch iterator: what it wraps, the number of worker processes and the transforms."""
    wrapped = getattr(loader, "generator", None) or getattr(loader, "data_loader", None)
    parts = {
        "generator": wrapped,
        "generator.transforms": getattr(wrapped, "transforms", None),
        "num_processes": getattr(loader, "num_processes", None),
        "transform": getattr(loader, "transform", None),
    }
    return {f"{name}.{part}": str(value) for part, value in parts.items() if value is not None}


def describe_machine(device: torch.device) -> dict[str, str]:
    """Describes host, device and the versions that results depend on."""
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

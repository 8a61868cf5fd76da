"""Resolves device names to available devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinov3.utils.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = ("cpu", "cuda", "mps")


def available_devices() -> list[str]:
    """Names of the devices of this machine that torch can use."""
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name in DEVICE_NAMES if present[name]]


def require_device_name(name: str, setting: str = "-device ") -> None:
    """Raises `UsageError` if no machine has such a device; unlike `resolve_device`, it does not import torch."""
    if name not in DEVICE_NAMES:
        raise UsageError(f"{setting}{name!r} is not known; it must be one of {', '.join(DEVICE_NAMES)}")


def resolve_device(name: str | None, setting: str = "-device ") -> torch.device:
    """Returns the device of that name.

    Args:
        name: cpu, cuda or mps; None: CUDA if available, else the CPU.
        setting: flag or setting before the name, for error messages.

    Raises:
        UsageError: the name is not cpu, cuda or mps, or this machine does not have the device.
    """
    if name is None:
        name = "cuda" if "cuda" in available_devices() else "cpu"
    require_device_name(name, setting)
    there = available_devices()
    if name not in there:
        raise UsageError(
            f"This machine has no {name} device that torch can use; it has {', '.join(there)}: "
            + " or ".join(f"{setting}{other}" for other in there)
        )
    import torch

    return torch.device(name)

"""Copies between host and device for which the host does not wait.

A wait for the device lets it run dry: the host gives it new work only after all earlier work is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Moves a tensor to a device, if it is not there; one from the CPU knows where it comes from, see `on_host`."""
    if tensor.device.type == "cpu" and device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # a copy of other memory may wait
    moved = tensor.to(device, non_blocking=True)
    if moved is not tensor:
        moved._on_host = (tensor, version_of(moved))
    return moved


def on_host(tensor: Tensor) -> Tensor:
    """The same values on the CPU if they came from there by `to_device`; else the tensor itself."""
    source, version = getattr(tensor, "_on_host", (tensor, None))
    return source if version == version_of(tensor) else tensor  # else it was written to on the device


def version_of(tensor: Tensor) -> int | None:
    """Counts the writes to a tensor; None in inference mode, which does not count them."""
    return None if tensor.is_inference() else tensor._version


class LateValues:
    """Copies a tensor to the host; only `read` waits for it, which costs nothing once the device is further.

    Args:
        values: small tensor, not written to afterwards.
    """

    def __init__(self, values: Tensor) -> None:
        self._event = None
        if values.device.type == "cuda":
            values = values.to("cpu", non_blocking=True)  # into pinned memory
            self._event = torch.cuda.Event()
            self._event.record()
        self._values = values

    @property
    def is_read(self) -> bool:
        """True if `read` does not wait."""
        return self._event is None

    def read(self) -> np.ndarray:
        """Returns the values; waits for them."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
            self._values = self._values.clone()  # pinned memory is scarce
        return self._values.numpy()


class LateScalar(NDArrayOperatorsMixin):
    """A zero-dimensional array whose value may still be on its way; whatever needs the value waits for it.

    Args:
        values: copy that it is part of.
        index: which of the values, counted flat.
    """

    def __init__(self, values: LateValues, index: int = 0) -> None:
        self._copy, self._index = values, index

    @staticmethod
    def of(scalar: Tensor) -> np.ndarray | LateScalar:
        """The value of a tensor as float32; an ordinary array if it is on the CPU."""
        values = LateValues(scalar.detach().float())
        return values.read() if values.is_read else LateScalar(values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self._copy.read().reshape(-1)[self._index, ...]
        return np.array(value, dtype=dtype) if copy else np.asarray(value, dtype=dtype)

    def item(self) -> float:
        return np.asarray(self).item()

    tolist = item

    def __float__(self) -> float:
        return float(self.item())

    def __format__(self, form: str) -> str:
        return format(self.item(), form)

    def __repr__(self) -> str:
        return repr(np.asarray(self))

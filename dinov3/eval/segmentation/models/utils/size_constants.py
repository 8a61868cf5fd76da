"""Cache of constant tensors that depend only on map sizes and a device.

Grids and position encodings are the same in every step of a run. Recomputing them costs a dozen kernel launches and,
for tensors created from Python numbers, a synchronisation with the device; so the last few are cached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_Arguments = ParamSpec("_Arguments")

REMEMBERED = 64  # cached results per function; one training run needs 3, multi-scale testing about 20

_forget: list[Callable[[], None]] = []


def constant_of_size(function: Callable[_Arguments, Tensor]) -> Callable[_Arguments, Tensor]:
    """Caches the last results of a function whose arguments (sizes, a device) are hashable.

    The returned tensors are shared: they must not be written to.
    """
    remembered = functools.lru_cache(maxsize=REMEMBERED)(function)
    _forget.append(remembered.cache_clear)

    @functools.wraps(function)
    def look_up(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Tensor:
        # A traced tensor must not outlive its trace, nor a fake tensor the mode that created it.
        if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
            return function(*args, **kwargs)
        with torch.inference_mode(False):  # tensors cached in prediction must be usable in training
            return remembered(*args, **kwargs)

    return look_up


def forget_constants() -> None:
    """Empties the caches of all functions."""
    for forget in _forget:
        forget()

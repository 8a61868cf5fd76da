"""Counts where the host would wait for a device, on the CPU.

Reading a value, moving a tensor to the host, and operations whose output size depends on values make the host wait
until a GPU has come so far. On the CPU they cost nothing and are easily overlooked.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    *(
        "cpu",
        "item",
        "tolist",
        "numpy",
        "nonzero",
        "argwhere",
        "masked_select",
        "unique",
        "unique_consecutive",
        "equal",
    ),
    *("allclose", "is_nonzero", "bincount", "__bool__", "__int__", "__float__", "__index__", "__array__"),
    *("__contains__", "__format__", "__repr__"),
}
DATA_DEPENDENT = {
    *("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique2", "aten.unique_dim"),
    *("aten.equal", "aten.is_nonzero", "aten.bincount"),
}


class _Calls(TorchFunctionMode):
    def __init__(self, reads: Counter) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READS:
            self.reads[name] += 1
        options = kwargs or {}
        to_host = name == "to" and any(str(value) == "cpu" for value in (*args[1:], *options.values()))
        if to_host and not options.get("non_blocking"):
            self.reads["to cpu"] += 1
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """What the functions come down to: here a Boolean index is found, also in a backward pass."""

    def __init__(self, reads: Counter) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        indices = (
            args[1] if name in ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_") else ()
        )
        by_mask = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
        sized_by_values = name == "aten.repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in DATA_DEPENDENT or by_mask or sized_by_values:
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def host_reads() -> Iterator[Counter]:
    """Counts by name within the block. One read may count twice, as a function and as the operation below it."""
    reads = Counter()
    with _Calls(reads), _Operations(reads):
        yield reads

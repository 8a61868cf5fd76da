"""Records the cost of a running network: FLOPs, tensors saved for the backward pass, peak memory."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nnunetv2.model.cost.network_parts import REST

_aten = torch.ops.aten
_BILINEAR_FLOPS = 8  # interpolating between four values takes four multiply-adds


def _grid_sample_flops(*_: Any, out_val: Tensor, **__: Any) -> int:
    return _BILINEAR_FLOPS * out_val.numel()


def _grid_sample_backward_flops(gradient: Tensor, *_: Any, **__: Any) -> int:
    return 2 * _BILINEAR_FLOPS * gradient.numel()  # the gradients of positions and of values cost the same


def _convolution_backward_flops(
    gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *settings: Any, out_val: Any
) -> int:
    """Counts one forward pass per gradient (input, weight); PyTorch's own formula ignores groups."""
    *settings, needed = settings
    return sum(needed[:2]) * flop_registry[_aten.convolution](x, weight, None, *settings, out_val=gradient)


# PyTorch's table knows matrix products, convolutions and the attention kernels of GPUs.
FLOP_FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
    _aten.convolution_backward: _convolution_backward_flops,
    _aten.grid_sampler_2d: _grid_sample_flops,
    _aten.grid_sampler_2d_backward: _grid_sample_backward_flops,
}


@dataclass
class _Memory:
    num_bytes: int
    kept_by: str | None = None
    """part of the network that saved it for the backward pass"""


class CostRecorder(TorchDispatchMode):
    """Counts operations and memory while the context `watching` is open; works on real and on fake tensors.

    Args:
        part_of: label of the part of each module.

    Attributes:
        flops: floating-point operations of each part so far, forward and backward; a multiply-add is two.
        peak_bytes: peak memory of the tensors, excluding those that existed before.
    """

    def __init__(self, part_of: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.peak_bytes = 0
        self._part_of = part_of
        self._parts: list[str] = []  # parts of the running modules, innermost last
        self._part_outside = REST
        self._memory: dict[int, _Memory] = {}
        self._live_bytes = 0
        self._known: set[int] = set()

    @contextmanager
    def watching(self, already_there: Iterable[Tensor]) -> Iterator[None]:
        """Records everything that runs inside the `with` block.

        Args:
            already_there: tensors to exclude from the memory count, such as the weights.
        """
        there = [tensor.untyped_storage() for tensor in already_there]  # kept alive so that their ids are not reused
        self._known = set(map(id, there))
        with ExitStack() as stack:
            for module, part in self._part_of.items():
                stack.callback(module.register_forward_pre_hook(self._entering(part), prepend=True).remove)
                stack.callback(module.register_forward_hook(self._leave, always_call=True).remove)
            stack.enter_context(saved_tensors_hooks(self._keep, self._give_back))
            stack.enter_context(self)
            yield

    def kept_bytes(self) -> Counter[str]:
        """Memory that each part currently keeps for the backward pass; shared storage is counted once."""
        kept: Counter[str] = Counter()
        for memory in self._memory.values():
            if memory.kept_by is not None:
                kept[memory.kept_by] += memory.num_bytes
        return kept

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, (Tensor, tuple, list)):
            return result
        formula = FLOP_FORMULAS.get(func._overloadpacket)
        if formula is not None:
            part = self._parts[-1] if self._parts else self._part_outside
            self.flops[part] += formula(*args, **kwargs, out_val=result)
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.watch(leaf)
        return result

    def watch(self, tensor: Tensor) -> None:
        """Counts the memory of a tensor until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known or key in self._memory:
            return
        self._memory[key] = _Memory(storage.nbytes())
        self._live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._live_bytes -= self._memory.pop(key).num_bytes

    def _entering(self, part: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: self._parts.append(part)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._parts.pop()

    def _keep(self, tensor: Tensor) -> tuple[str, Tensor]:
        part = self._parts[-1] if self._parts else self._part_outside
        self.watch(tensor)
        memory = self._memory.get(id(tensor.untyped_storage()))
        if memory is not None and memory.kept_by is None:
            memory.kept_by = part
        return part, tensor

    def _give_back(self, kept: tuple[str, Tensor]) -> Tensor:
        # No module runs in the backward pass, so a saved tensor that is requested identifies the current part.
        self._part_outside, tensor = kept
        return tensor

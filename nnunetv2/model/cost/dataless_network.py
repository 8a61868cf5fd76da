"""Networks with fake tensors (shapes without values): built and run in seconds, whatever their size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2.model.vit_network import ViTNetwork

AUTOCAST_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Functions that autocast runs in float32 on CUDA but in the input's dtype on the CPU.
# Source: PyTorch documentation, "Automatic Mixed Precision package", op-specific behavior.
_IN_FLOAT32 = {
    *(F.layer_norm, F.group_norm, F.normalize, F.softmax, F.log_softmax, F.softplus, F.interpolate, Tensor.__pow__),
    *(
        getattr(place, name)
        for place in (torch, Tensor)
        for name in ("softmax", "log_softmax", "exp", "log", "pow", "sum", "cumsum", "prod", "norm", "rsqrt")
    ),
}


def build_without_data(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network without allocating its weights; run it inside `running_without_data`.

    Progress-dependent networks are set to the end of training.
    """
    with torch.device("meta"):
        network = build().to("meta")  # timm creates some constants on the CPU explicitly
    # On the device "meta", attention takes its slow path and autocast is not available.
    replaced: dict[Tensor, Tensor] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in network.modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if tensor not in replaced:
                    replaced[tensor] = _empty_like(tensor)
                setattr(module, name, replaced[tensor])
    if isinstance(network, ViTNetwork):
        for name, buffer in network.head.named_buffers(recurse=False):  # the forward pass branches on them
            setattr(network.head, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
        network.set_training_progress(1.0)
    return network


@contextmanager
def running_without_data(network: nn.Module) -> Iterator[None]:
    """Makes tensors created inside the block fake as well; a network with real weights runs as usual."""
    logger = logging.getLogger(FakeTensorMode.__module__)  # logs every raised error with its traceback
    with ExitStack() as stack:
        stack.callback(setattr, logger, "disabled", logger.disabled)
        logger.disabled = True
        tensors = [*network.parameters(), *network.buffers()]
        for mode in {tensor.fake_mode for tensor in tensors if isinstance(tensor, FakeTensor)}:
            stack.enter_context(mode)
            if not all(isinstance(tensor, FakeTensor) for tensor in tensors):
                stack.enter_context(_TrueValues())
        yield


@contextmanager
def autocast_as_on_cuda(precision: str) -> Iterator[None]:
    """Emulates a GPU's autocast for tensors on the CPU; does nothing for `fp32`."""
    dtype = AUTOCAST_TYPES[precision]
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype), _Float32Functions():
        yield


class _TrueValues(TorchDispatchMode):
    """Evaluates operations whose inputs all have real values, so that the network can branch on the results."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        has_values = tensors and not any(isinstance(tensor, FakeTensor) for tensor in tensors)
        with unset_fake_temporarily() if has_values else nullcontext():
            return func(*args, **(kwargs or {}))


class _Float32Functions(TorchFunctionMode):
    """Adds to the CPU's autocast the float32 functions that only CUDA's autocast covers."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = pytree.tree_map_only(Tensor, _in_float32, (args, kwargs))
        return func(*args, **(kwargs or {}))


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _empty_like(tensor: Tensor) -> Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty

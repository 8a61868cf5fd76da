"""Trained weights of linear and convolutional layers, cast to half precision together once per training step.

Autocast casts every weight by a kernel of its own, again where activations are recomputed, and as many kernels cast the
gradients back: a third of what a step of Mask2Former launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_in_half: dict[Tensor, Tensor] = {}  # of the step in progress


def in_half(weight: Tensor) -> Tensor:
    """The weight as autocast would cast it, if the step in progress has cast it already; else the weight itself."""
    kind = weight.device.type
    half = _in_half.get(weight) if _in_half and torch.is_autocast_enabled(kind) else None
    return weight if half is None or half.dtype != torch.get_autocast_dtype(kind) else half


class _Linear(nn.Linear):
    looks_up_halves = True

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else in_half(self.bias)
        return nn.functional.linear(x, in_half(self.weight), bias)


class _Convolution(nn.Module):
    looks_up_halves = True

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else in_half(self.bias)
        return self._conv_forward(x, in_half(self.weight), bias)


class _Conv1d(_Convolution, nn.Conv1d):
    pass


class _Conv2d(_Convolution, nn.Conv2d):
    pass


class _Conv3d(_Convolution, nn.Conv3d):
    pass


_LAYERS: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _Linear,
    nn.Conv1d: _Conv1d,
    nn.Conv2d: _Conv2d,
    nn.Conv3d: _Conv3d,
}


class JointCasts:
    """Casts the trained float32 weights of a network, for steps under autocast on one device.

    Trained layers whose class is exactly torch's look their weights up from now on; parameters stay what they are, and
    where. Other classes take part with `looks_up_halves = True` and `in_half`; autocast casts all other weights.
    Not for processes that average gradients while the backward pass still runs: here, gradients come at its end.

    Args:
        network: changed in place.
        dtype: of autocast.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        for layer in network.modules():
            if any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
                layer.__class__ = _LAYERS.get(type(layer), type(layer))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Surrounds forward and backward pass of one step."""
        weights = list(self._weights())
        halves = _Cast.apply(self.dtype, *weights)
        _in_half.update(zip(weights, halves, strict=True))
        try:
            yield
        finally:
            _in_half.clear()

    def _weights(self) -> Iterator[nn.Parameter]:
        owners = [module for module in self.network.modules() if getattr(module, "looks_up_halves", False)]
        parameters = (parameter for owner in owners for parameter in owner.parameters(recurse=False))
        for parameter in dict.fromkeys(parameters):  # one that two layers share is cast once
            if parameter.requires_grad and parameter.dtype == torch.float32:
                yield parameter


class _Cast(torch.autograd.Function):
    """Casts tensors to one dtype, and their gradients back, by one kernel for some hundred tensors."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a weight without gradient stays without
        ctx.dtypes = [weight.dtype for weight in weights]
        return _cast(weights, [dtype] * len(weights))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [index for index, gradient in enumerate(gradients) if gradient is not None]
        casts = _cast([gradients[index] for index in there], [ctx.dtypes[index] for index in there])
        by_index = dict(zip(there, casts, strict=True))
        return None, *(by_index.get(index) for index in range(len(gradients)))


def _cast(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
    casts = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    if casts:
        torch._foreach_copy_(casts, tensors)
    return tuple(casts)

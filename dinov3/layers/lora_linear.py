"""peft's linear layer with a low-rank update, in fewer kernels where autocast computes in half precision."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from dinov3.layers.joint_casts import in_half


class LoRALinear(Linear):
    """Computes the same as peft's layer up to rounding, with its parameters, merging and methods.

    Weight, update, sum and all their gradients are one function for autograd, which neither casts the input twice nor
    rounds the update before it is added.
    """

    def __init__(self, layer: Linear) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in) -> (..., out)."""
        adapter = self._plain_adapter()
        if args or kwargs or adapter is None or not _computes_in_half(x):
            return super().forward(x, *args, **kwargs)
        base, dropout = self.get_base_layer(), self.lora_dropout[adapter]
        share = dropout.p if isinstance(dropout, nn.Dropout) and self.training else 0.0
        down, up = in_half(self.lora_A[adapter].weight), in_half(self.lora_B[adapter].weight)
        return _LowRankLinear.apply(x, base.weight, base.bias, down, up, self.scaling[adapter], share)

    def _plain_adapter(self) -> str | None:
        """The adapter, if there is one whose update is a plain product, and a frozen weight to add it to."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        (adapter,) = self.active_adapters
        is_plain = adapter in self.lora_A and adapter not in self.lora_variant
        base = self.get_base_layer()
        is_frozen = not any(parameter.requires_grad for parameter in base.parameters())
        is_plain = is_plain and type(base) is nn.Linear and self.lora_B[adapter].bias is None
        return adapter if is_plain and is_frozen else None


def _computes_in_half(x: Tensor) -> bool:
    kind = x.device.type
    is_half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) != torch.float32
    return is_half and not torch.compiler.is_compiling()  # the compiler writes kernels of its own


class _LowRankLinear(torch.autograd.Function):
    """x W^T + b + s drop(x) A^T B^T in the dtype of autocast, with gradients of x, A and B."""

    @staticmethod
    def forward(  # noqa: PLR0913 - the operands
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float, dropout: float
    ) -> Tensor:
        dtype = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            weight, low, high = weight.to(dtype), down.to(dtype), up.to(dtype)
            tokens = x.to(dtype).flatten(0, -2)
            dropped, kept = torch.native_dropout(tokens, dropout, True) if dropout else (tokens, None)
            hidden = dropped.mm(low.T)
            result = tokens.mm(weight.T) if bias is None else torch.addmm(bias.to(dtype), tokens, weight.T)
            result.addmm_(hidden, high.T, alpha=scale)
        ctx.save_for_backward(weight, low, high, dropped, hidden, kept)
        ctx.scale, ctx.dropout, ctx.shape = scale, dropout, x.shape
        ctx.dtypes = x.dtype, down.dtype, up.dtype
        return result.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, low, high, dropped, hidden, kept = ctx.saved_tensors
        of_x, of_down, of_up = ctx.dtypes
        gradient = gradient.flatten(0, -2).to(weight.dtype)
        of_hidden = _scaled_product(gradient, high, ctx.scale)
        result = None
        if ctx.needs_input_grad[0]:
            result = gradient.mm(weight)
            if kept is None:
                result.addmm_(of_hidden, low)
            else:
                result.addcmul_(of_hidden.mm(low), kept, value=1 / (1 - ctx.dropout))
            result = result.to(of_x).view(ctx.shape)
        through_down = of_hidden.T.mm(dropped).to(of_down)
        through_up = _scaled_product(gradient.T, hidden, ctx.scale).to(of_up)
        return result, None, None, through_down, through_up, None, None


def _scaled_product(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """scale * first @ second, in one kernel."""
    return torch.addmm(first.new_empty(()), first, second, beta=0, alpha=scale)

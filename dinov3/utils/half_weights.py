"""Frozen weights in half precision during training; checkpoints get their float32 values.

Autocast casts a frozen weight anew in every forward pass, as it only remembers casts of weights that require gradients,
and autograd keeps the cast for the backward pass beside the weight. A weight in half precision has one copy and no
cast, and layers under autocast compute the same with it, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dinov3.utils.precision import HALF_PRECISIONS, resolve_precision

_HOOKS = "frozen_float_values"


def halve_frozen_weights(network: nn.Module, precision: str | None, device: torch.device) -> None:
    """Casts the frozen float32 weights of linear layers on a GPU, and keeps their values on the CPU.

    The state dict has the values in float32 as before, on the CPU. Loading weights replaces them.

    Args:
        network: changed in place; from now on called under `precision_context` only.
        precision: of the training; with fp32 nothing is done.
        device: of the training; nothing is done on a CPU, which has no memory to spare for a second copy of its own.
    """
    precision = resolve_precision(precision, device)
    if device.type == "cuda" and precision != "fp32":
        cast_frozen_weights(network, HALF_PRECISIONS[precision])


def cast_frozen_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Casts the frozen float32 weights of linear layers to the dtype of autocast, see `halve_frozen_weights`."""
    for layer in network.modules():
        if not isinstance(layer, nn.Linear) or hasattr(layer, _HOOKS):
            continue
        own = layer.named_parameters(recurse=False)
        if frozen := {n: p for n, p in own if not p.requires_grad and p.dtype == torch.float32}:
            setattr(layer, _HOOKS, _FloatValues({name: weight.detach().cpu() for name, weight in frozen.items()}))
            layer.register_state_dict_post_hook(_Saving())
            layer.register_load_state_dict_pre_hook(_on_loading)
            for name, weight in frozen.items():
                _replace(layer, name, weight.detach().to(dtype))


def restore_frozen_weights(network: nn.Module) -> None:
    """Undoes `halve_frozen_weights`; the network has the float32 values again. No-op where nothing was cast."""
    for layer in network.modules():
        values = getattr(layer, _HOOKS, None)
        if values is None:
            continue
        for name, value in values.by_name.items():
            _replace(layer, name, value.to(getattr(layer, name).device, copy=True))
        values.by_name.clear()
        delattr(layer, _HOOKS)


def _replace(layer: nn.Module, name: str, value: Tensor) -> None:
    setattr(layer, name, nn.Parameter(value, requires_grad=False))


class _FloatValues:
    """Kept as a plain attribute: a tensor among the buffers would follow the network to the device."""

    def __init__(self, by_name: dict[str, Tensor]) -> None:
        self.by_name = by_name


class _Saving:
    """A hook that is no function, as torch marks hooks by an attribute and a layer may have several."""

    def __call__(self, layer: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
        if (values := getattr(layer, _HOOKS, None)) is not None:
            state_dict.update({f"{prefix}{name}": value for name, value in values.by_name.items()})


def _on_loading(layer: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    if (values := getattr(layer, _HOOKS, None)) is not None:
        for name, value in values.by_name.items():
            loaded = state_dict.get(f"{prefix}{name}")
            if loaded is not None and loaded.shape == value.shape:
                values.by_name[name] = loaded.detach().to("cpu", torch.float32, copy=True)

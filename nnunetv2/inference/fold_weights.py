"""Put the weights of the folds into the network that predicts, and copy only what is not there already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dinov3.layers.lora import add_lora_to_weights
from dinov3.utils.network_wrappers import unwrap
from nnunetv2.inference.model_loading import load_weights
from nnunetv2.utilities.device_memory import free_bytes

Weights = Mapping[str, torch.Tensor]
Stamp = tuple[tuple[int, int], ...] | None

# The rest is left to the network and its activations.
_LARGEST_SHARE_OF_FREE_MEMORY = 0.5


class FoldWeights:
    """Remembers which fold's weights a network has, and on CUDA keeps those of all folds on the device if they fit.

    Weights that somebody else changed, in the network or in the list, are loaded again.
    """

    def __init__(self) -> None:
        self._network: nn.Module | None = None
        self._present: Weights | None = None
        self._stamps: tuple[Stamp, Stamp] = (None, None)
        self._copies: dict[int, tuple[Weights, Stamp, Weights]] = {}
        self._keeps_copies = True

    @contextmanager
    def loaded(self, network: nn.Module, folds: Sequence[Weights], number: int, device: torch.device) -> Iterator[None]:
        """A context in which the network has the weights of one fold, LoRA's updates added to them.

        Args:
            network: compiled or not; on `device`, or about to be moved there.
            folds: weights of each fold; they stay as they are.

        Raises:
            DataError: names or shapes of the weights differ from the network's.
        """
        weights, inner = folds[number], unwrap(network)
        if not self._has(inner, weights):
            self._network = None
            load_weights(network, self._near(folds, number, device), f"Entry {number} of list_of_parameters")
            if not _share_memory(inner, weights):
                add_lora_to_weights(inner)
        yield
        # Only now, because moving a network to its device replaces its buffers.
        self._network, self._present = inner, weights
        self._stamps = _stamp(_tensors(inner)), _stamp(weights.values())

    def _has(self, network: nn.Module, weights: Weights) -> bool:
        if self._network is not network or self._present is not weights:
            return False
        stamps = _stamp(_tensors(network)), _stamp(weights.values())
        return None not in stamps and stamps == self._stamps

    def _near(self, folds: Sequence[Weights], number: int, device: torch.device) -> Weights:
        """The weights of a fold, from the device if all folds are kept there."""
        weights = folds[number]
        if len(folds) == 1 or not self._keeps_copies:
            return weights
        stamp = _stamp(weights.values())
        source, copied, copy = self._copies.get(number, (None, None, None))
        if source is weights and stamp is not None and stamp == copied:
            return copy
        num_missing = len(folds) - len(self._copies)
        if num_missing * _num_bytes(weights) > _LARGEST_SHARE_OF_FREE_MEMORY * free_bytes(device):
            self.free()
            return weights
        copy = {
            name: value.to(device, copy=True) if isinstance(value, torch.Tensor) else value
            for name, value in weights.items()
        }
        self._copies[number] = weights, stamp, copy
        return copy

    def free(self) -> None:
        """Give up the copies on the device, for good."""
        self._copies.clear()
        self._keeps_copies = False


def _tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _stamp(values: Iterable[Any]) -> Stamp:
    """Which tensors these are, and how often each was changed in place; None if that is not counted."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return tuple((id(tensor), tensor._version) for tensor in tensors)


def _share_memory(network: nn.Module, weights: Weights) -> bool:
    """Whether a change of the network in place would change the weights of the fold, as with its own state dict."""
    own = {tensor.data_ptr() for tensor in _tensors(network)}
    return any(isinstance(value, torch.Tensor) and value.data_ptr() in own for value in weights.values())


def _num_bytes(weights: Weights) -> int:
    return sum(value.nbytes for value in weights.values() if isinstance(value, torch.Tensor))

"""One loss over a network's outputs at several resolutions, and the weights of those resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class DeepSupervisionWrapper(nn.Module):
    """Weighted sum of one loss over lists of outputs, targets (and whatever else the loss takes).

    Args:
        loss: called with the i-th entry of each list.
        weight_factors: one weight per entry, `None` for ones. Entries of weight 0 are never computed.

    Raises:
        ValueError: every weight is zero.
    """

    def __init__(self, loss: nn.Module, weight_factors: Sequence[float] | None = None) -> None:
        super().__init__()
        if weight_factors is not None and not any(weight_factors):
            raise ValueError(f"at least one deep supervision weight must differ from 0, got {list(weight_factors)}")
        self.weight_factors = None if weight_factors is None else tuple(float(weight) for weight in weight_factors)
        self.loss = loss

    def forward(self, *args: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scalar loss of equally long lists, the highest resolution first.

        Raises:
            ValueError: an argument is not a list or tuple, or the lengths differ.
        """
        if not all(isinstance(entries, (list, tuple)) for entries in args):
            kinds = ", ".join(type(entries).__name__ for entries in args)
            raise ValueError(f"deep supervision takes lists of tensors, highest resolution first; got {kinds}")
        weights = self.weight_factors or (1.0,) * len(args[0])
        lengths = [len(entries) for entries in args]
        if set(lengths) != {len(weights)}:
            raise ValueError(f"deep supervision has {len(weights)} weights for lists of lengths {lengths}")
        levels = zip(weights, zip(*args, strict=True), strict=True)
        return sum(weight * self.loss(*inputs) for weight, inputs in levels if weight != 0)


def deep_supervision_weights(num_outputs: int, unused_output_weight: float = 0.0) -> tuple[float, ...]:
    """Weights 1, 1/2, 1/4, ... of `num_outputs` resolutions, highest first, normalised to sum 1.

    The lowest resolution does not help and gets `unused_output_weight`, unless it is the only one.
    """
    weights = [0.5**level for level in range(num_outputs)]
    if num_outputs > 1:
        weights[-1] = unused_output_weight
    total = sum(weights)
    return tuple(weight / total for weight in weights)

"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dinov3.eval.segmentation.training.model_state import trained_state


class ExponentialMovingAverage:
    """Averages tensors over the updates of a training.

    Floating-point tensors, including batch statistics, are averaged in at least float32; others are copied. Frozen
    weights are not averaged, unlike in torch's `AveragedModel`, which would store a second backbone.

    Update n (from 1) uses the decay min(`decay`, (1 + n) / (10 + n)), so that the initial weights do not dominate a
    short training.

    Args:
        state: Initial values, see `trained_state`; copied.
        decay: In [0, 1).

    Attributes:
        average: Tensors by name.
        num_updates: Number of updates so far.

    Raises:
        ValueError: If the decay is out of range.

    Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; the warm-up is that of
    TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"A decay of {decay} was given for the moving average; give at least 0 and below 1.")
        self.decay = decay
        self.num_updates = 0
        self.average = {name: _averageable(value).clone() for name, value in state.items()}

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor]) -> None:
        """Adds the weights after an update; names and shapes must match the initial ones."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, values = [], []
        for name, average in self.average.items():
            if average.is_floating_point():
                averages.append(average)
                values.append(_averageable(state[name]))
            else:
                average.copy_(state[name])
        get_ema_multi_avg_fn(decay)(averages, values, self.num_updates)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for `load_state_dict`."""
        # The entry is named `model` because readers of weight files look for `ema.model`.
        return {"model": self.average, "num_updates": self.num_updates}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state from `state_dict` of the same weights."""
        self.num_updates = state["num_updates"]
        for name, average in self.average.items():
            average.copy_(state["model"][name])


def _averageable(value: Tensor) -> Tensor:
    value = value.detach()
    return value.to(torch.promote_types(value.dtype, torch.float32)) if value.is_floating_point() else value


@contextmanager
def averaged_weights(model: nn.Module, ema: ExponentialMovingAverage | None) -> Iterator[None]:
    """Swaps in the averaged weights inside the block and restores the model's own afterwards; no-op without `ema`."""
    if ema is None:
        yield
        return
    own = {name: value.clone() for name, value in trained_state(model).items()}
    _overwrite(model, ema.average)
    try:
        yield
    finally:
        _overwrite(model, own)


@torch.no_grad()
def _overwrite(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, tensor in trained_state(model).items():
        tensor.copy_(values[name])

"""Ends a training on a signal, after the running step; what was trained until the last epoch is saved."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dinov3.utils.processes.stop_signals import StopVote

RESUME = "The same command with --c resumes it"

Step = Callable[[Any], Any]


class StopTraining(Exception):  # noqa: N818 - not an error
    """A signal asked this process, or another one of its group, to stop."""


def stoppable(vote: StopVote, step: Step) -> Step:
    """Makes a step raise `StopTraining` when it is complete and the training is to stop."""

    @functools.wraps(step)
    def step_and_look(batch: Any) -> Any:
        result = step(batch)
        if vote.after_step():
            raise StopTraining
        return result

    return step_and_look


def copied(value: Any, into: Any = None) -> Any:
    """Copies plain data and tensors, the latter to the CPU.

    Args:
        into: an earlier copy of the same data, whose tensors are reused; allocating them anew takes as long as copying.
    """
    if isinstance(value, torch.Tensor):
        fits = isinstance(into, torch.Tensor) and (into.shape, into.dtype) == (value.shape, value.dtype)
        return into.copy_(value.detach()) if fits else value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        before = into if isinstance(into, Mapping) else {}
        return {key: copied(item, before.get(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    return value

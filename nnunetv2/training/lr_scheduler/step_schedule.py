"""Base of schedules whose learning rate depends only on the step number."""

from __future__ import annotations

from abc import abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class StepSchedule(LRScheduler):
    """Sets each group's learning rate to its reference rate times `factor(step)`.

    The reference rate is `reference_lr` if all parameter groups were created with the same learning rate. Groups with
    different rates (layer-wise decay, a slower backbone) each keep their own as reference.

    Args:
        optimizer: the `lr` of its groups is overwritten immediately, for the first step.
        reference_lr: learning rate that `factor` multiplies.
        current_step: step to start from; `None` or -1 start at 0.
    """

    def __init__(self, optimizer: Optimizer, reference_lr: float, current_step: int | None = None) -> None:
        made_with = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
        share_one_rate = all(lr == made_with[0] for lr in made_with)
        self._reference_lrs = [reference_lr] * len(made_with) if share_one_rate else made_with
        self.ctr = 0
        self._last_lr: list[float] = []
        super().__init__(optimizer, -1 if current_step is None else current_step)

    @abstractmethod
    def factor(self, step: int) -> float:
        """Multiplier of the reference learning rate at `step` (counted from 0)."""

    def step(self, current_step: int | None = None) -> None:
        """Sets the learning rates of `current_step`, or of the next step if it is `None` or -1."""
        if current_step is None or current_step == -1:
            current_step = self.ctr
            self.ctr += 1
        factor = self.factor(current_step)
        for group, reference_lr in zip(self.optimizer.param_groups, self._reference_lrs, strict=True):
            group["lr"] = reference_lr * factor
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        return self._last_lr

"""Polynomial decay of the learning rate to zero."""

from __future__ import annotations

from torch.optim import Optimizer

from nnunetv2.training.lr_scheduler.step_schedule import StepSchedule


class PolyLRScheduler(StepSchedule):
    """Learning rate `initial_lr * (1 - step / max_steps) ** exponent`; 0 from `max_steps` on.

    Groups with different learning rates keep their ratios, see `StepSchedule`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        initial_lr: float,
        max_steps: int,
        exponent: float = 0.9,
        current_step: int | None = None,
    ) -> None:
        self.initial_lr = initial_lr
        self.max_steps = max_steps
        self.exponent = exponent
        super().__init__(optimizer, initial_lr, current_step)

    def factor(self, step: int) -> float:
        return max(0.0, 1 - step / self.max_steps) ** self.exponent

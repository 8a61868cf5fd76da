"""Linear warm-up, and decays that start after it."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from nnunetv2.training.lr_scheduler.step_schedule import StepSchedule


class Lin_incr_LRScheduler(StepSchedule):
    """Learning rate that increases linearly and reaches `max_lr` at step `max_steps - 1`."""

    def __init__(self, optimizer: Optimizer, max_lr: float, max_steps: int, current_step: int | None = None) -> None:
        self.max_lr = max_lr
        self.max_steps = max_steps
        super().__init__(optimizer, max_lr, current_step)

    def factor(self, step: int) -> float:
        return (1 + step) / self.max_steps


class Lin_incr_offset_LRScheduler(StepSchedule):
    """`Lin_incr_LRScheduler` whose first step is `start_step`."""

    def __init__(
        self, optimizer: Optimizer, max_lr: float, max_steps: int, start_step: int, current_step: int | None = None
    ) -> None:
        self.max_lr = max_lr
        self.max_steps = max_steps
        self.start_step = start_step
        super().__init__(optimizer, max_lr, current_step)

    def factor(self, step: int) -> float:
        return (1 + step - self.start_step) / self.max_steps


class PolyLRScheduler_offset(StepSchedule):
    """Polynomial decay from `initial_lr` at `start_step` (constant before) to zero at `max_steps`.

    The attribute `max_steps` holds the length of the decay, `max_steps - start_step`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        initial_lr: float,
        max_steps: int,
        start_step: int,
        exponent: float = 0.9,
        current_step: int | None = None,
    ) -> None:
        self.initial_lr = initial_lr
        self.max_steps = max_steps - start_step
        self.start_step = start_step
        self.exponent = exponent
        super().__init__(optimizer, initial_lr, current_step)

    def factor(self, step: int) -> float:
        progress = max(0, step - self.start_step) / self.max_steps
        return max(0.0, 1 - progress) ** self.exponent


class CosineAnnealingLR_offset(CosineAnnealingLR):
    """Half a cosine from each group's learning rate at step `offset` to `eta_min` at step `T_max`.

    Args:
        optimizer: see `CosineAnnealingLR`, as `T_max`, `eta_min` and `last_epoch`.
        verbose: ignored; PyTorch removed it.
        offset: step at which the decay begins.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,
        eta_min: float = 0,
        last_epoch: int = -1,
        verbose: str = "deprecated",
        offset: int = 0,
    ) -> None:
        self.offset = offset
        super().__init__(optimizer, T_max, eta_min, last_epoch)

    def step(self, epoch: int | None = None) -> None:
        """Sets the learning rates of `epoch`, or of the next one if it is `None`."""
        self._step_count += 1
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        for group, lr in zip(self.optimizer.param_groups, self._get_closed_form_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _get_closed_form_lr(self) -> list[float]:
        progress = (self.last_epoch - self.offset) / (self.T_max - self.offset)
        share = (1 + math.cos(math.pi * progress)) / 2
        return [self.eta_min + (base_lr - self.eta_min) * share for base_lr in self.base_lrs]

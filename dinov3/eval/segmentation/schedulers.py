"""Per-iteration learning rate schedules: a warm-up, then cosine or polynomial decay.

Every parameter group keeps its own peak, so that ratios, for example between backbone and head, are preserved.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dinov3.eval.segmentation.settings.training import LONGEST_DEFAULT_WARMUP
from dinov3.utils.errors import UsageError

DIV_FACTOR = 25.0  # torch's OneCycleLR starts at the peak / 25; final_div_factor divides that again


class WarmupScheduler(LRScheduler, abc.ABC):
    """Multiplies the initial learning rate of each group by a factor in [0, 1].

    Call `step` once after every optimiser step. Beyond `total_iter`, the rate keeps its last value.

    Args:
        optimizer: Its learning rates are the peaks.
        total_iter: Iterations until the end of the schedule; may be changed later.
        warmup_iters: Iterations of the warm-up, part of `total_iter`.
        last_epoch: Completed iterations; -1 starts anew.

    Raises:
        ValueError: If the warm-up is not shorter than the schedule.
    """

    def __init__(self, optimizer: Optimizer, total_iter: int, *, warmup_iters: int = 0, last_epoch: int = -1) -> None:
        if not 0 <= warmup_iters < total_iter:
            raise ValueError(
                f"A warm-up of {warmup_iters} of {total_iter} iterations was given; give 0 to {total_iter - 1}."
            )
        self.total_iter = total_iter
        self.warmup_iters = warmup_iters
        super().__init__(optimizer, last_epoch)

    @abc.abstractmethod
    def factor(self, iteration: int) -> float:
        """Fraction of the peak rate in an iteration, counted from 0."""

    def get_lr(self) -> list[float]:
        """Returns one rate per parameter group."""
        return [peak * self.factor(self.last_epoch) for peak in self.base_lrs]


class WarmupOneCycleLR(WarmupScheduler):
    """Half a cosine over all iterations, with a warm-up from 0 at the start.

    With t the completed fraction of all iterations and w that of the warm-up, the warm-up follows w (1 - t) and the
    cosine (1 + cos(pi t)) / 2. These are the original's rates in its recipe for the linear head (there with
    `warmup_ratio: 1e-6`), up to one iteration.

    Args:
        optimizer: Its learning rates are the peaks.
        total_iter: Iterations until the end of the schedule; may be changed later.
        warmup_iters: Iterations of the warm-up, part of `total_iter`.
        final_div_factor: At least 1; the cosine ends at the peak / (25 * final_div_factor), as in torch's `OneCycleLR`.
            Infinity: it ends at 0.
        last_epoch: Iterations already done; -1 starts anew.

    Raises:
        ValueError: If a value lies outside its range.

    Source: Smith and Topin 2019, "Super-Convergence", arXiv:1708.07120; Loshchilov and Hutter 2017, "SGDR", equation 5,
    arXiv:1608.03983.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iter: int,
        *,
        warmup_iters: int = LONGEST_DEFAULT_WARMUP,
        final_div_factor: float = math.inf,
        last_epoch: int = -1,
    ) -> None:
        if not final_div_factor >= 1.0:
            raise ValueError(f"A final_div_factor of {final_div_factor} was given; give at least 1 (inf ends at 0).")
        self.last_factor = 1.0 / (DIV_FACTOR * final_div_factor)
        super().__init__(optimizer, total_iter, warmup_iters=warmup_iters, last_epoch=last_epoch)

    def factor(self, iteration: int) -> float:
        done = min(1.0, iteration / self.total_iter)
        if iteration < self.warmup_iters:
            return iteration / self.warmup_iters * (1.0 - done)
        return self.last_factor + (1.0 - self.last_factor) * 0.5 * (1.0 + math.cos(math.pi * done))


class WarmupPolyLR(WarmupScheduler):
    """Linear warm-up, then polynomial decay to 0.

    Args:
        optimizer: Its learning rates are the peaks.
        total_iter: Iterations until the end of the schedule; may be changed later.
        warmup_iters: Iterations of the linear warm-up, part of `total_iter`.
        warmup_start: Factor in [0, 1] at the first iteration of a warm-up.
        power: Exponent; 1: linear decay.
        last_epoch: Iterations already done; -1 starts anew.

    Raises:
        ValueError: If a value lies outside its range.

    Source: Chen et al. 2017, "DeepLab", section 4.1.1, arXiv:1606.00915.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iter: int,
        *,
        warmup_iters: int = 0,
        warmup_start: float = 0.0,
        power: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 <= warmup_start <= 1.0:
            raise ValueError(f"A warm-up from {warmup_start} of the rate was given; give a factor from 0 to 1.")
        self.warmup_start, self.power = warmup_start, power
        super().__init__(optimizer, total_iter, warmup_iters=warmup_iters, last_epoch=last_epoch)

    def factor(self, iteration: int) -> float:
        if iteration < self.warmup_iters:
            return self.warmup_start + (1.0 - self.warmup_start) * iteration / self.warmup_iters
        return (1.0 - min(1.0, (iteration - self.warmup_iters) / (self.total_iter - self.warmup_iters))) ** self.power


SCHEDULERS: dict[str, type[WarmupScheduler]] = {"WarmupOneCycleLR": WarmupOneCycleLR, "WarmupPolyLR": WarmupPolyLR}


def build_scheduler(
    scheduler_type: str,
    optimizer: Optimizer,
    lr: float,
    total_iter: int,
    constructor_kwargs: Mapping[str, Any],
) -> WarmupScheduler:
    """Builds the schedule of a configuration.

    Args:
        scheduler_type: A key of `SCHEDULERS`.
        optimizer: The learning rates of its groups are their peaks.
        lr: Ignored, because every group has its own peak; kept for compatibility with the original.
        total_iter: Iterations of the whole run.
        constructor_kwargs: Further arguments of the schedule.

    Raises:
        UsageError: The type or an argument is unknown, or a value is rejected.
    """
    if scheduler_type not in SCHEDULERS:
        raise UsageError(f"scheduler.type={scheduler_type!r} is not known; choose one of {', '.join(SCHEDULERS)}")
    try:
        return SCHEDULERS[scheduler_type](optimizer, total_iter, **constructor_kwargs)
    except (TypeError, ValueError) as err:
        raise UsageError(
            f"{scheduler_type} refuses scheduler.constructor_kwargs={dict(constructor_kwargs)}: {err}"
        ) from err

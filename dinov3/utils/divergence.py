"""Detects diverging trainings: losses, gradients or weights that are not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
from torch import nn

from dinov3.utils.errors import DivergedError

logger = logging.getLogger(__name__)

PATIENCE = 10  # consecutive bad optimiser steps after which a run is aborted

_ADVICE = "lower the initial learning rate, use precision fp32, or look for images with infinite or NaN voxels"


class DivergenceGuard:
    """Accepts or rejects each update: isolated bad steps are skipped, a series of them aborts the run."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self.patience = patience
        self.bad_steps_in_a_row = 0
        self._unread: Callable[[], tuple[float, float]] | None = None

    def accepts_later(self, read: Callable[[], tuple[float, float]]) -> None:
        """Judges a step whose values are still on the device when the next step is taken, or by `settle`.

        The device itself skips the step if it is bad. Exactly one step is unread, so that all processes stop at the
        same one.

        Args:
            read: waits for loss and gradient norm and returns them.

        Raises:
            DivergedError: the step before was the `patience`-th consecutive bad one.
        """
        before, self._unread = self._unread, read
        if before is not None:
            self.accepts(*before())

    def settle(self) -> None:
        """Judges the last step, if it has not been; raises like `accepts`."""
        before, self._unread = self._unread, None
        if before is not None:
            self.accepts(*before())

    def accepts(self, loss: float, gradient_norm: float = 0.0) -> bool:
        """Returns true if loss and gradient norm are finite; counts and reports bad steps.

        Raises:
            DivergedError: this was the `patience`-th consecutive bad step.
        """
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.bad_steps_in_a_row = 0
            return True
        self.bad_steps_in_a_row += 1
        if self.bad_steps_in_a_row >= self.patience:
            raise DivergedError(
                f"Training diverged: {self.bad_steps_in_a_row} steps in a row had a loss of {loss} and a gradient norm "
                f"of {gradient_norm}; {_ADVICE}"
            )
        logger.warning("Step skipped: the loss is %s, the gradient norm %s", loss, gradient_norm)
        return False


def mean_of_finite_losses(losses: np.ndarray, epoch: int) -> float:
    """Mean training loss of an epoch over its finite steps.

    Raises:
        DivergedError: no step of the epoch had a finite loss.
    """
    finite = np.asarray(losses)[np.isfinite(losses)]
    if finite.size == 0:
        raise DivergedError(f"Training diverged: no step of epoch {epoch} had a finite loss; {_ADVICE}")
    return float(finite.mean())


def require_finite_parameters(network: nn.Module) -> None:
    """Rejects a network with infinite or NaN parameters.

    Raises:
        DivergedError: a parameter is not finite; the message names the first one.
    """
    for name, parameter in network.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise DivergedError(f"Training diverged: parameter {name} is not finite, nothing was saved; {_ADVICE}")

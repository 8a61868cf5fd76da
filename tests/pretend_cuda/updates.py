"""Updates of a small network on the pretended device, some with gradients that are not finite."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dinov3.utils.divergence import DivergenceGuard
from dinov3.utils.errors import DivergedError
from dinov3.utils.optimizer_step import update_weights
from tests.pretend_cuda.device import CUDA, pretended_cuda


@dataclass(frozen=True)
class Updates:
    """What a series of updates did.

    Attributes:
        moved: per update, whether the weights changed.
        states: per update, the sums of the weights and of each tensor of the optimiser.
        losses: as read after the last update.
        waits: of all updates.
        warnings: number of steps that were reported as skipped, once all were judged.
        error: message of the `DivergedError` that ended them; None: there was none.
    """

    moved: list[bool]
    states: list[list[float]]
    losses: list[float]
    waits: list[str]
    warnings: int
    error: str | None


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.number = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.number += 1


def update(optimizer_name: str, factors: Sequence[float], *, scaled: bool = False, fused: bool = True) -> Updates:
    """Updates once per factor, by which the loss is multiplied; ten bad ones in a row end it."""
    torch.manual_seed(0)
    moved, states, results, error, warnings = [], [], [], None, _Warnings()
    logger = logging.getLogger(DivergenceGuard.__module__)
    logger.addHandler(warnings)
    with pretended_cuda() as log:
        network = torch.nn.Linear(3, 2).to(CUDA)
        options = {"momentum": 0.9, "nesterov": True} if optimizer_name == "SGD" else {}
        optimizer = getattr(torch.optim, optimizer_name)(network.parameters(), 0.1, fused=fused, **options)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0) if scaled else None
        guard, image = DivergenceGuard(), torch.tensor([[1.0, -2.0, 0.5]]).to(CUDA)
        log.reset()
        try:
            for factor in factors:
                optimizer.zero_grad()
                before = network.weight.on_cpu.clone()
                loss = network(image).square().sum() * factor
                results.append(update_weights(loss, network, optimizer, scaler, clip_norm=12, guard=guard).loss)
                moved.append(not torch.equal(network.weight.on_cpu, before))
                moments = [value for values in optimizer.state.values() for value in values.values()]
                tensors = [*network.parameters(), *filter(torch.is_tensor, moments)]
                states.append([float(tensor.detach().on_cpu.sum()) for tensor in tensors])
            waits = log.waits
            guard.settle()
        except DivergedError as err:
            waits, error = log.waits, str(err)
        losses = [float(loss) for loss in results]
    logger.removeHandler(warnings)
    return Updates(moved, states, losses, waits, warnings.number, error)

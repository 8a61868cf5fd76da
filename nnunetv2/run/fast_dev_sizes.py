"""Batches that a CPU can train within seconds, for fast dev runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

_BATCH_SIZE = 2
_SIDE = {2: 128, 3: 64}  # voxels per axis, by the number of axes


@dataclass(frozen=True)
class BatchShape:
    """Batch size and patch size of a training step."""

    batch_size: int
    patch_size: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.batch_size} patches of {' x '.join(map(str, self.patch_size))}"


def with_small_batches(trainer_class: type[nnUNetTrainer]) -> type[nnUNetTrainer]:
    """Returns a subclass of the same name that reduces batch and patch size after all settings are applied.

    Its instances have the attribute `planned_batch`, the original `BatchShape`.
    """

    class SmallBatches(trainer_class):
        def adapt_plans(self, plans: dict, configuration: str) -> dict:
            plans = super().adapt_plans(plans, configuration)
            manager = PlansManager(plans).get_configuration(configuration)
            self.planned_batch = BatchShape(manager.batch_size, tuple(manager.patch_size))
            small = small_batch(self.planned_batch, strides_of(manager.configuration))
            changes = {"batch_size": small.batch_size, "patch_size": list(small.patch_size)}
            plans["configurations"][configuration].update(changes)
            return plans

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(SmallBatches, name, getattr(trainer_class, name))  # folders and checkpoints are named after the class
    return SmallBatches


def small_batch(planned: BatchShape, strides: Sequence[Sequence[int]]) -> BatchShape:
    """Reduces a batch to at most two patches of 128 pixels per axis (64 voxels in 3-D) that a U-Net can pool.

    Sides stay multiples of the total stride and never grow. At the deepest level at least two voxels remain, because a
    single one cannot be normalised.

    Args:
        strides: strides per stage and axis; empty for networks that accept any size.
    """
    units = [math.prod(of_axis) for of_axis in zip(*strides, strict=True)] or [1] * len(planned.patch_size)
    limit = _SIDE[len(planned.patch_size)]
    sides = [min(side, max(unit, limit // unit * unit)) for side, unit in zip(planned.patch_size, units, strict=True)]
    if all(side <= unit for side, unit in zip(sides, units, strict=True)):
        sides[-1] = min(planned.patch_size[-1], 2 * units[-1])
    return BatchShape(min(planned.batch_size, _BATCH_SIZE), tuple(sides))


def strides_of(configuration: dict[str, Any]) -> list[list[int]]:
    """Returns the strides per stage and axis of a configuration's architecture; empty if it has none."""
    strides = (configuration["architecture"]["arch_kwargs"] or {}).get("strides", [])
    num_axes = len(configuration["patch_size"])
    return [[stride] * num_axes if isinstance(stride, int) else list(stride) for stride in strides]


def batch_of(trainer: nnUNetTrainer) -> BatchShape:
    manager = trainer.configuration_manager
    return BatchShape(manager.batch_size, tuple(manager.patch_size))


def planned_batch_of(trainer: nnUNetTrainer) -> BatchShape:
    """Returns the batch of the plans and settings, before the reduction."""
    return getattr(trainer, "planned_batch", None) or batch_of(trainer)

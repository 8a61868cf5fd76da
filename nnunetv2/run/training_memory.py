"""Explains in one line that a training ran out of memory: what was tried, how much it needs, and what reduces it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dinov3.utils.precision import resolve_precision
from nnunetv2.errors import NNUNetError
from nnunetv2.training.cost.trainer_cost import trainer_cost
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

logger = logging.getLogger(__name__)

_GIB = 2**30
_IMAGE = 2  # axes of a patch
_ON_THE_CPU = re.compile("can't allocate memory|not enough memory|Cannot allocate memory")


class TrainingMemoryError(NNUNetError, RuntimeError):
    """A training does not fit into the memory of its device."""


@contextmanager
def explained_lack_of_memory(trainer: nnUNetTrainer) -> Iterator[None]:
    """Turns a failed allocation within the block into an error that names the settings to change.

    Raises:
        TrainingMemoryError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as err:
        if not is_lack_of_memory(err):
            raise
        raise TrainingMemoryError(_explanation(trainer, err)) from err


def is_lack_of_memory(err: BaseException) -> bool:
    """True if an allocation failed on a GPU or on the CPU."""
    return isinstance(err, (torch.OutOfMemoryError, MemoryError)) or bool(_ON_THE_CPU.search(str(err)))


def _explanation(trainer: nnUNetTrainer, err: BaseException) -> str:
    patch = " x ".join(str(int(size)) for size in trainer.configuration_manager.patch_size)
    precision = resolve_precision(trainer.precision, trainer.device)
    said = ". ".join(" ".join(str(err).split()).split(". ")[:3]).rstrip(".") or type(err).__name__
    settings = (trainer.trainer_config or {}).get("model", {})  # read first: the estimate uses the trainer's hooks
    of_volumes = len(trainer.configuration_manager.patch_size) > _IMAGE
    measures = [*_measures(settings, of_volumes), *(["--precision bf16"] if precision == "fp32" else [])]
    if trainer.batch_size > 1:
        measures.insert(0, f"a batch_size below {trainer.batch_size}")
    return (
        f"{trainer.device} ran out of memory while training {trainer.batch_size} patches of {patch} in {precision} "
        f"({said}). {_estimate(trainer)}Use {', '.join(measures)} or a smaller patch_size; batch_size and patch_size "
        f"are in the plans {trainer.plans_manager.plans_name}.json, configuration {trainer.configuration_name}"
    )


def _measures(model: dict[str, Any], of_volumes: bool) -> list[str]:
    """Settings of vision transformers that need less memory than those in use; first those that change no result."""
    measures = []
    if of_volumes and "slices_per_chunk" in model:
        chunk = model["slices_per_chunk"]
        measures += ["model.slices_per_chunk=4"] if chunk is None else []
        measures += [f"model.slices_per_chunk below {chunk}"] if (chunk or 0) > 1 else []
    if model.get("gradient_checkpointing") is False:
        measures.append("model.gradient_checkpointing=true")
    if (model.get("input_scale") or 1) > 1:
        measures.append(f"model.input_scale below {model['input_scale']}")
    if model.get("tuning") == "full":
        measures.append("model.tuning=lora")
    elif model.get("tuning") == "lora":
        measures.append("model.tuning=frozen")
    return measures


def _estimate(trainer: nnUNetTrainer) -> str:
    try:
        memory = trainer_cost(trainer, trainer.plans_manager, batch_size=trainer.batch_size).memory
    except Exception as err:  # of any kind: networks of users may not run without data
        logger.debug("The memory cannot be estimated: %r", err)
        return ""
    fixed = memory.weights + memory.gradients + memory.optimizer
    return (
        f"Such a step needs about {memory.training_peak / _GIB:.2g} GiB, of which {fixed / _GIB:.2g} GiB are weights, "
        "gradients and optimiser state, and the rest grows with batch and patch. "
    )

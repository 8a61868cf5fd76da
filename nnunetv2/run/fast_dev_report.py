"""Measures single steps, extrapolates to a whole training, and formats the report."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.run.fast_dev_prediction import PredictedCase
from nnunetv2.run.fast_dev_sizes import batch_of, planned_batch_of
from nnunetv2.training.logging.training_log import duration_in_words
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_GIB = 2**30
_NAMED_PARAMETERS = 8  # in the warning about those without a gradient


@dataclass
class Stopwatch:
    """Records start and end of function calls in seconds; waits for the GPU at the end of a call."""

    device: torch.device
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function so that its calls are recorded under a name."""

        def call(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            result = function(*args, **kwargs)
            self.spans.setdefault(name, []).append((started, self._now()))
            return result

        return call

    def last(self, name: str) -> float:
        """Duration of the last call; earlier calls include one-time costs."""
        started, ended = self.spans[name][-1]
        return ended - started

    def before_last(self, name: str) -> float:
        """Duration between the last two calls."""
        return self.spans[name][-1][0] - self.spans[name][-2][1]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


@dataclass(frozen=True)
class TrainingLength:
    """Length of a training."""

    num_epochs: int
    num_iterations: int
    """per epoch"""
    num_val_iterations: int
    """per epoch"""


@dataclass(frozen=True)
class EpochEstimate:
    """Estimates the duration of an epoch from single steps; all times in seconds."""

    length: TrainingLength
    training_step: float
    validation_step: float
    batch: float
    """to load and augment a batch in one process"""
    num_workers: int
    """background processes that do this; 0: the training waits for each batch"""

    def seconds(self) -> float:
        """Duration of one epoch; the slower of network and workers limits the training steps."""
        if self.num_workers:
            step = max(self.training_step, self.batch / self.num_workers)
        else:
            step = self.training_step + self.batch
        return self.length.num_iterations * step + self.length.num_val_iterations * self.validation_step

    def facts(self) -> dict[str, str]:
        """Lines of the report."""
        num_epochs, epoch = self.length.num_epochs, self.seconds()
        is_waiting = self.num_workers and self.batch > self.num_workers * self.training_step
        limit = f", limited by the {self.num_workers} processes that load and augment" if is_waiting else ""
        return {
            "next batch": f"{self.batch:.2f} s to load and augment in one process",
            "one epoch": f"about {duration_in_words(epoch)}{limit}",
            "whole training": f"about {duration_in_words(num_epochs * epoch)} for {num_epochs} epochs",
        }


def facts_of_training(trainer: nnUNetTrainer, stopwatch: Stopwatch) -> dict[str, str]:
    """Lines of the report about the measured steps."""
    batch, planned = batch_of(trainer), planned_batch_of(trainer)
    losses = {name: trainer.logger.get_value(name, -1) for name in ("train_losses", "val_losses")}
    return {
        "batch": str(batch) if batch == planned else f"{batch}, on the CPU instead of {planned}",
        "parameters": describe_parameters(unwrap(trainer.network)),
        "training step": f"{stopwatch.last('train'):.2f} s, loss {losses['train_losses']:.4f}",
        "validation step": f"{stopwatch.last('validate'):.2f} s, loss {losses['val_losses']:.4f}",
    }


def facts_of_length(
    trainer: nnUNetTrainer, stopwatch: Stopwatch, length: TrainingLength, num_workers: int
) -> dict[str, str]:
    """Lines of the report about the duration of the whole training."""
    if batch_of(trainer) != planned_batch_of(trainer):
        return {"one epoch": "cannot be told from smaller batches"}
    seconds = {"training_step": stopwatch.last("train"), "validation_step": stopwatch.last("validate")}
    batch = stopwatch.before_last("train")
    return EpochEstimate(length, **seconds, batch=batch, num_workers=num_workers).facts()


def describe_parameters(network: nn.Module) -> str:
    """Formats the numbers of all and of trained parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)
    return f"{total / 1e6:.3f} million, {trained / 1e6:.3f} million of them trained"


def idle_parameters(network: nn.Module, deep_supervision: bool) -> list[str]:
    """Names of the trained parameters to which the last step gave no gradient.

    Those that a training on several GPUs expects are left out: parameters of a backbone, such as blocks behind the last
    one that the head reads, and the outputs of a U-Net without deep supervision.
    """
    backbone = getattr(network, "backbone", None)
    if backbone is None and not deep_supervision:
        return []
    expected = set() if backbone is None else {id(parameter) for parameter in backbone.parameters()}
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.grad is None and id(parameter) not in expected
    ]


def warning_of_idle_parameters(names: Sequence[str]) -> str:
    """Formats a warning about parameters that get no gradient."""
    more = f" and {len(names) - _NAMED_PARAMETERS} more" if len(names) > _NAMED_PARAMETERS else ""
    return (
        f"WARNING: no gradient reaches {', '.join(names[:_NAMED_PARAMETERS])}{more}. They are not trained, and a "
        f"training on several GPUs may stop at them; use them in forward(), or remove them"
    )


def describe_case(case: PredictedCase) -> str:
    """Returns, for example, `the middle 1 x 128 x 192 of the 1 x 520 x 696 voxels of case_1; Dice 0.020`."""
    shape, whole = (" x ".join(map(str, size)) for size in (case.shape, case.whole_shape))
    is_whole = case.shape == case.whole_shape
    part = f"{case.name}, {whole} voxels" if is_whole else f"the middle {shape} of the {whole} voxels of {case.name}"
    mirroring = "" if case.is_mirrored else ", without mirroring"
    dice = "undefined without foreground" if math.isnan(case.dice) else f"{case.dice:.3f}"
    return f"{part}{mirroring}; Dice {dice}, which says nothing yet"


def peak_memory(device: torch.device) -> str:
    """Formats the peak memory: of the GPU, or else of this process if the operating system reports it."""
    if device.type == "cuda":
        reserved, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        return f"{reserved / _GIB:.1f} of {total / _GIB:.1f} GiB of the GPU"
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB:.1f} GiB of main memory"


def report_lines(title: str, facts: dict[str, str]) -> list[str]:
    """Formats a title, followed by one indented line per fact."""
    width = max(map(len, facts))
    return [title, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items())]

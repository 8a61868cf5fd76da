"""The benchmark of a real card, on the pretended device."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from benchmarks import gpu_models, on_gpu, step_times
from tests.pretend_cuda.device import pretended_cuda

MEASURED = ("m2f", "U-Net 2-D")
# The profile shows times of kernels, and compiled kernels are Triton's.
NEEDS_A_DRIVER = ("nccl", "profile", "compile")


def sections(folder: Path) -> dict[str, Any]:
    """Runs `benchmarks.on_gpu --tiny` with few models and without what needs a driver; returns its sections."""
    few = [model for model in gpu_models.every_model() if model.name in MEASURED]
    possible = [name for name in on_gpu.SECTIONS if name not in NEEDS_A_DRIVER]
    arguments = ["--tiny", "--repeats", "1", "--minutes", "10", "--output", str(folder), "--only", *possible]
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))  # it has roots of its own
        for module in (on_gpu, gpu_models):
            stack.enter_context(mock.patch.object(module, "every_model", lambda: few))
        # The profiler asks the driver as soon as it is to record kernels.
        stack.enter_context(mock.patch.object(step_times, "driver_events", lambda step: step() and {}))
        # Costs are computed on tensors without data, which need the true dispatcher; they have tests of their own.
        cost = SimpleNamespace(total=lambda _: 10**9, memory=SimpleNamespace(training_peak=2**30))
        stack.enter_context(mock.patch.object(on_gpu, "trainer_cost", lambda *_, **__: cost))
        stack.enter_context(pretended_cuda())
        on_gpu.main(arguments)
    return json.loads((folder / "on_gpu.json").read_text())["sections"]

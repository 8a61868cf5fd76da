"""Times of steps that are measured in turn, in one run, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Step = Callable[[], Any]


def milliseconds(step: Step, device: torch.device) -> dict[str, float]:
    """Wall time of one call, and on the CPU the CPU time of all threads as well."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return {"ms": 1000 * (time.perf_counter() - wall)}
    return {"ms": 1000 * (time.process_time() - cpu), "wall_ms": 1000 * (time.perf_counter() - wall)}


def medians(steps: Mapping[str, Step], device: torch.device, repeats: int) -> dict[str, dict[str, float]]:
    """Median times of each step; the first round warms up and does not count."""
    rounds = [{name: milliseconds(step, device) for name, step in steps.items()} for _ in range(repeats + 1)][1:]
    return {
        name: {kind: round(statistics.median(times[name][kind] for times in rounds), 1) for kind in rounds[0][name]}
        for name in steps
    }


def cuda_figures(step: Step, device: torch.device) -> dict[str, int]:
    """Peak memory above what lies there already, and waits of the host for the device, of one call.

    Waits are counted twice: `waits` are the operations that torch knows to wait, `synchronisations` and
    `copies_to_host` are what the profiler saw of the driver.
    """
    resting = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchronizing" in str(warning.message) for warning in caught)
    peak = torch.cuda.max_memory_allocated(device) - resting
    return {"waits": waits, "peak_MB": round(peak / 1e6)} | driver_events(step)


def driver_events(step: Step) -> dict[str, int]:
    """How often one call makes the host wait for a stream or copies from device to host, by the profiler."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
    names = [event.name for event in profiler.events()]
    return {
        "synchronisations": sum(name in ("cudaStreamSynchronize", "cudaEventSynchronize") for name in names),
        "copies_to_host": sum("Memcpy DtoH" in name for name in names),
    }

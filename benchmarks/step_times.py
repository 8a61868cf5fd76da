"""Times steps in turn, in one run, so that background load affects all of them equally."""

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
    """Measures the wall time of one call, and on the CPU also the CPU time of all threads."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return {"ms": 1000 * (time.perf_counter() - wall)}
    return {"ms": 1000 * (time.process_time() - cpu), "wall_ms": 1000 * (time.perf_counter() - wall)}


def medians(steps: Mapping[str, Step], device: torch.device, repeats: int) -> dict[str, dict[str, float]]:
    """Measures median times of each step; the first round is a warm-up and is discarded."""
    rounds = [{name: milliseconds(step, device) for name, step in steps.items()} for _ in range(repeats + 1)][1:]
    return {
        name: {kind: round(statistics.median(times[name][kind] for times in rounds), 1) for kind in rounds[0][name]}
        for name in steps
    }


def cuda_figures(step: Step, device: torch.device) -> dict[str, int]:
    """Measures additional peak memory and host waits of one call.

    Waits are counted in two ways: `waits` are operations that torch reports as synchronising, `synchronisations` and
    `copies_to_host` are driver calls recorded by the profiler.
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
    """Counts stream synchronisations and device-to-host copies of one call with the profiler."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
    names = [event.name for event in profiler.events()]
    return {
        "synchronisations": sum(name in ("cudaStreamSynchronize", "cudaEventSynchronize") for name in names),
        "copies_to_host": sum("Memcpy DtoH" in name for name in names),
    }

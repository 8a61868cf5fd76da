"""What a training step asks of a GPU: budgets of launches, casts, bytes and memory per model, at a small size.

A change that needs more has to give its reason here. `python -m benchmarks.step_budget` counts full sizes.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from benchmarks.step_budget import CLASSES, GIB, step_budget
from nnunetv2.model.cost.model_cost import model_cost
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.query_network import QueryNetwork

SETTINGS = {"backbone_size": "small", "tuning": "lora", "size": 128, "batch": 2}

BUDGETS = (
    # head, launches, casts among them, GB read and written
    ("segformer", 770, 88, 0.600),
    ("upernet", 980, 150, 0.940),
    ("dpt", 920, 86, 0.970),
    ("m2f", 3395, 416, 4.850),
    ("eomt", 1129, 130, 1.590),
    ("pmt", 1956, 250, 2.840),
)


def count(process: ProcessPoolExecutor, head: str, **settings: Any) -> dict[str, Any]:
    return process.submit(step_budget, {"name": head}, **(SETTINGS | settings)).result()


@pytest.mark.parametrize(("head", "launches", "casts", "gigabytes"), BUDGETS)
def test_step_stays_within_its_budget(
    cuda_process: ProcessPoolExecutor, head: str, launches: int, casts: int, gigabytes: float
) -> None:
    found = count(cuda_process, head)
    assert found["launches"] <= launches
    assert found["casts"] <= casts
    assert found["moved_GB"] <= gigabytes


def test_full_size_of_mask2former_stays_within_its_budget(cuda_process: ProcessPoolExecutor) -> None:
    found = count(cuda_process, "m2f", backbone_size="large", size=512)
    assert found["launches"] <= 4000
    assert found["peak_GiB"] <= 4.9


@pytest.mark.parametrize("depth", [None, 6])
@pytest.mark.parametrize("head", ["segformer", "upernet", "dpt", "eomt"])
def test_model_info_tells_the_memory_and_operations_of_a_gpu(
    cuda_process: ProcessPoolExecutor, head: str, depth: int | None
) -> None:
    """Which it computes with tensors on the CPU."""
    found = count(cuda_process, head, depth=depth, halves=False, has_loss=False)
    told = cuda_process.submit(told_cost, head, depth).result()
    assert told["peak_GiB"] == pytest.approx(found["peak_GiB"], rel=0.05)
    assert told["TFLOP"] == pytest.approx(found["TFLOP"], rel=0.05)


def told_cost(head: str, depth: int | None) -> dict[str, float]:
    size, batch = SETTINGS["size"], SETTINGS["batch"]
    settings = {"backbone_size": SETTINGS["backbone_size"], "tuning": SETTINGS["tuning"], "head": {"name": head}}
    of_volumes = {} if depth is None else {"slice_input": "neighbours", "fusion": "conv"}
    kind, patch = (QueryNetwork if head == "eomt" else DenseViTNetwork), (size, size)
    channels, patch = (3, patch) if depth is None else (1, (depth, *patch))
    cost = model_cost(
        lambda: kind(channels, CLASSES, **settings, **of_volumes), channels, patch, batch_size=batch, precision="bf16"
    )
    peak = (cost.memory.training_peak - cost.memory.optimizer) / GIB
    return {"peak_GiB": peak, "TFLOP": batch * cost.total("training_flops") / 1e12}


def test_frozen_weights_in_half_precision_save_casts_and_memory(cuda_process: ProcessPoolExecutor) -> None:
    halves, floats = (count(cuda_process, "segformer", halves=halves) for halves in (True, False))
    blocks, layers = 12, 4  # qkv, proj, fc1 and fc2: weight and bias
    assert floats["casts"] - halves["casts"] >= blocks * layers
    assert floats["peak_GiB"] > halves["peak_GiB"]

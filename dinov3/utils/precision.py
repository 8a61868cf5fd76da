"""Training precisions: fp32, fp16 and bf16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from dinov3.utils.errors import UsageError

HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *HALF_PRECISIONS)


def resolve_precision(precision: str | None, device: torch.device) -> str:
    """Resolves the training precision; None: fp16 on CUDA, fp32 elsewhere.

    Raises:
        UsageError: the name is unknown, or the device does not support the precision.
    """
    if precision is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}; accepted are {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(f"precision fp16 needs a CUDA device and this one is {device.type}; use fp32 or bf16")
    if precision == "bf16" and device.type == "mps":
        raise UsageError("precision bf16 is not available on mps; use fp32")
    return precision


def precision_context(precision: str | None, device: torch.device) -> AbstractContextManager:
    """Context for forward pass and loss: autocast for half precision, no-op for fp32."""
    precision = resolve_precision(precision, device)
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=HALF_PRECISIONS[precision])


@contextmanager
def tensor_cores_for_float32(precision: str | None, device: torch.device) -> Iterator[None]:
    """Within the block, fp32 on CUDA multiplies matrices in TF32, which rounds their factors to 10 bits.

    Convolutions do so by torch's default. Half precision keeps exact float32 where it uses float32. The environment
    variable NVIDIA_TF32_OVERRIDE=0 turns TF32 off.
    """
    if device.type != "cuda" or resolve_precision(precision, device) != "fp32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

"""Precision and compilation by device."""

from __future__ import annotations

import pytest
import torch

from dinov3.utils.precision import precision_context, resolve_precision, tensor_cores_for_float32
from nnunetv2.errors import UsageError
from nnunetv2.training.setup.device_settings import should_compile
from nnunetv2.utilities import torch_compile

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(("device", "expected"), [(CUDA, "fp16"), (CPU, "fp32"), (MPS, "fp32")])
def test_default_precision_is_half_on_cuda_only(device: torch.device, expected: str) -> None:
    assert resolve_precision(None, device) == expected


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("half", CPU, "precision is 'half'; accepted are fp32, bf16, fp16"),
        ("fp16", CPU, "fp16 needs a CUDA device and this one is cpu"),
        ("bf16", MPS, "bf16 is not available on mps"),
    ],
)
def test_precision_that_cannot_be_had_is_refused(precision: str, device: torch.device, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_precision(precision, device)


@pytest.mark.parametrize(("precision", "dtype"), [(None, torch.float32), ("bf16", torch.bfloat16)])
def test_precision_context_decides_the_dtype_of_products(precision: str | None, dtype: torch.dtype) -> None:
    with precision_context(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("device", "wish", "expected"),
    [
        (CUDA, None, True),
        (CUDA, "f", False),
        (CUDA, "True", True),
        (CUDA, "reduce-overhead", True),
        (CUDA, "quickly", False),
        (CPU, "t", True),
        (CPU, "0", False),
        (CPU, None, False),
        (MPS, "1", False),
    ],
)
def test_compilation_follows_device_and_wish(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, wish: str | None, expected: bool
) -> None:
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if wish is not None:
        monkeypatch.setenv("nnUNet_compile", wish)
    monkeypatch.setattr("sys.platform", "linux")
    assert should_compile(device) is expected
    monkeypatch.setattr("sys.platform", "win32")
    assert not should_compile(device)


@pytest.mark.parametrize(
    ("wish", "mode"),
    [(None, None), ("t", None), ("reduce-overhead", "reduce-overhead"), ("Max-Autotune", "max-autotune")],
)
def test_a_wish_may_name_the_mode(monkeypatch: pytest.MonkeyPatch, wish: str | None, mode: str | None) -> None:
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if wish is not None:
        monkeypatch.setenv("nnUNet_compile", wish)
    modes = []
    monkeypatch.setattr(torch, "compile", lambda network, mode: modes.append(mode) or network)
    assert torch_compile.compiled(torch.nn.Identity()) is not None
    assert modes == [mode]


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [("fp32", CUDA, "high"), ("bf16", CUDA, "highest"), (None, CUDA, "highest"), ("fp32", CPU, "highest")],
)
def test_only_float32_on_cuda_uses_tensor_cores(precision: str | None, device: torch.device, expected: str) -> None:
    with pytest.raises(InterruptedError), tensor_cores_for_float32(precision, device):
        assert torch.get_float32_matmul_precision() == expected
        raise InterruptedError
    assert torch.get_float32_matmul_precision() == "highest"

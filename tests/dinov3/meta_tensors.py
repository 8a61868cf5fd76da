"""Models of any size without memory: parameters on the meta device, left unfilled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from dinov3.eval.segmentation.models.utils.ms_deform_attn import MSDeformAttn

RANDOM = {"normal_", "uniform_", "erfinv_", "trunc_normal_"}


class _NoRandomNumbers(TorchFunctionMode):
    """Random numbers and arithmetic on the meta device make torch import its compiler, which takes seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ in RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def meta_tensors() -> Iterator[None]:
    with torch.device("meta"), _NoRandomNumbers(), mock.patch.object(MSDeformAttn, "reset_parameters"):
        yield

"""A digest by which predictions of two models are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_NUM_VALUES = 16


def weights_digest(folds: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of a few values of every tensor, in milliseconds; any further training changes it.

    Args:
        folds: weights of each fold.
    """
    digest = hashlib.sha256()
    for weights in folds:
        for name, value in weights.items():
            if not isinstance(value, torch.Tensor):
                continue
            digest.update(f"{name} {tuple(value.shape)} ".encode())
            flat = value.detach().flatten()
            chosen = flat[:: max(1, len(flat) // _NUM_VALUES)][:_NUM_VALUES]
            digest.update(chosen.cpu().double().numpy().tobytes())
    return digest.hexdigest()

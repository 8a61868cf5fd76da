"""Folds the first spatial axis into the channels and back, so that 2-D transforms of batchgenerators accept volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgenerators.transforms.abstract_transforms import AbstractTransform


class Convert3DTo2DTransform(AbstractTransform):
    """(B, C, X, Y, Z) -> (B, C * X, Y, Z); the original shape is stored under `orig_shape_{key}`.

    Args:
        apply_to_keys: keys of the arrays to fold.
    """

    def __init__(self, apply_to_keys: Sequence[str] = ("data", "seg")) -> None:
        self.apply_to_keys = apply_to_keys

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        for key in self.apply_to_keys:
            shape = data_dict[key].shape
            if len(shape) != 5:
                raise ValueError(f"only volumes (B, C, X, Y, Z) can be folded; {key!r} has shape {tuple(shape)}")
            if _shape_key(key) in data_dict:
                raise ValueError(f"{key!r} is folded already: the batch has {_shape_key(key)!r}")
            data_dict[_shape_key(key)] = shape
            data_dict[key] = data_dict[key].reshape(shape[0], shape[1] * shape[2], *shape[3:])
        return data_dict


class Convert2DTo3DTransform(AbstractTransform):
    """Undoes `Convert3DTo2DTransform`; the last two axes may have changed in between.

    Args:
        apply_to_keys: keys of the arrays to unfold.
    """

    def __init__(self, apply_to_keys: Sequence[str] = ("data", "seg")) -> None:
        self.apply_to_keys = apply_to_keys

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        for key in self.apply_to_keys:
            if _shape_key(key) not in data_dict:
                raise ValueError(f"{key!r} cannot be unfolded: Convert3DTo2DTransform has not been applied to it")
            unfolded = (*data_dict[_shape_key(key)][:3], *data_dict[key].shape[-2:])
            data_dict[key] = data_dict[key].reshape(unfolded)
        return data_dict


def _shape_key(key: str) -> str:
    return f"orig_shape_{key}"

"""Checks of what a head returns, so that a mistake in a head is not reported as one of the loss or of torch."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from nnunetv2.errors import UsageError


def require_logits(output: Any, head: nn.Module, num_classes: int) -> None:
    """Rejects the output of a dense head unless it is one tensor (B, K, h, w).

    Raises:
        UsageError: names the head, its file and what it returned.
    """
    if not (isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == num_classes):
        raise _wrong(head, output, f"logits of shape (batch, {num_classes}, height, width)")


def require_queries(output: Any, head: nn.Module, num_classes: int, *, is_volume: bool = False) -> None:
    """Rejects the output of a head with queries unless it is what `QueryHead.forward` describes.

    Raises:
        UsageError: names the head, its file and what it returned.
    """
    wanted = (
        f"a dictionary with pred_logits (batch, queries, {num_classes + 1}), "
        f"pred_masks (batch, queries, {'depth, ' if is_volume else ''}height, width) and the list aux_outputs"
    )
    if not isinstance(output, dict) or not {"pred_logits", "pred_masks", "aux_outputs"} <= output.keys():
        raise _wrong(head, output, wanted)
    classes, masks = output["pred_logits"], output["pred_masks"]
    if classes.ndim != 3 or classes.shape[2] != num_classes + 1 or masks.ndim != 4 + is_volume:
        raise _wrong(head, output, wanted)


def _wrong(head: nn.Module, output: Any, wanted: str) -> UsageError:
    place = inspect.getsourcefile(type(head))
    return UsageError(f"The head {head.name} ({place}) returned {_described(output)}; it must return {wanted}")


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        entries = (f"{key} {tuple(value.shape)}" if isinstance(value, Tensor) else key for key, value in output.items())
        return f"a dictionary with {', '.join(map(str, entries)) or 'nothing'}"
    return f"a {type(output).__name__}"

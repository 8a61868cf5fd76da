"""What EoMT and the plain mask transformer share: masked attention that is given up, and the modules behind the tokens.

Shapes: B batch, D embed dim, N = h * w patch tokens, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2.model.channel_norm import ChannelNorm

_ANNEALING_POWER = 0.9


def annealed_probability(progress: float, start: float, length: float) -> float:
    """Falls from 1 to 0 while the progress of a training runs from `start` to `start + length`; all in [0, 1]."""
    done = min(max((progress - start) / length, 0.0), 1.0)
    return (1.0 - done) ** _ANNEALING_POWER


def mask_probabilities(probabilities: Tensor, training: bool) -> list[Tensor | None]:
    """How probable it is in each block that a query is restricted to its mask.

    Args:
        probabilities: one per block, as annealed.
        training: in prediction a restriction holds for all queries, or for none.

    Returns:
        One per block; None: no restriction.
    """
    if training:  # read on the device, for a training step should not wait
        return list(probabilities.unbind())
    return [torch.ones_like(probability) if probability >= 0.5 else None for probability in probabilities]


def hidden_patches(masks: Tensor, grid: Sequence[int], probability: Tensor) -> Tensor:
    """Patches outside the masks of the queries that are restricted to them.

    Args:
        masks: logits (B, Q, *, *) of any resolution.
        grid: h and w.
        probability: that a query is restricted.

    Returns:
        Booleans (B, Q, N).
    """
    outside = F.interpolate(masks, size=grid, mode="bilinear", align_corners=False).flatten(2) <= 0
    return outside & (torch.rand(*masks.shape[:2], 1, device=masks.device) < probability)


def upscale_layers(dim: int) -> list[nn.Module]:
    """The layers of a stage (B, D, h, w) -> (B, D, 2h, 2w)."""
    return [
        nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
        nn.GELU(),
        nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False),
        ChannelNorm(dim),
    ]


def mask_mlp(dim: int) -> nn.Sequential:
    """What makes (B, Q, D) queries comparable with the features of pixels."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

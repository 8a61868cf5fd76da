"""Parts shared by EoMT and the plain mask transformer: annealed masked attention, and the modules on top of the tokens.

Shapes: B batch, D embed dim, N = h * w patch tokens, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.utils.host_copies import version_of
from nnunetv2.model.channel_norm import ChannelNorm

_ANNEALING_POWER = 0.9


def annealed_probability(progress: float, start: float, length: float) -> float:
    """Decreases from 1 to 0 while the training progresses from `start` to `start + length`; all in [0, 1]."""
    done = min(max((progress - start) / length, 0.0), 1.0)
    return (1.0 - done) ** _ANNEALING_POWER


class MaskSwitches:
    """Knows on the host which blocks are masked in prediction, so that no forward pass has to read it.

    Only yes or no is kept, as torch.compile would compile anew for each new number.
    """

    def __init__(self) -> None:
        self._are_on: tuple[bool, ...] = ()
        self._buffer: Tensor | None = None
        self._version: int | None = None

    def set(self, buffer: Tensor, probabilities: Sequence[float]) -> None:
        """Writes the probabilities of all blocks to the buffer, without waiting for the device."""
        buffer.copy_(torch.tensor(probabilities), non_blocking=True)
        self._keep(buffer, np.float32(probabilities).tolist())

    def read(self, buffer: Tensor) -> None:
        """Takes over what else was written to the buffer; waits for the device."""
        if not buffer.is_meta:
            self._keep(buffer, buffer.tolist())

    def _keep(self, buffer: Tensor, probabilities: Sequence[float]) -> None:
        self._are_on = tuple(probability >= 0.5 for probability in probabilities)
        self._buffer, self._version = buffer, version_of(buffer)

    def probabilities(self, buffer: Tensor, training: bool) -> list[Tensor | None]:
        """Returns the probability of masked attention for each block.

        Args:
            buffer: annealed probability of each block.
            training: false: masks apply to all queries or to none.

        Returns:
            One per block; None: attention is not masked.
        """
        if training:  # stays on the device
            return list(buffer.unbind())
        is_traced = torch.compiler.is_compiling() and self._buffer is not None  # a trace knows no versions
        if not is_traced and (self._buffer is not buffer or self._version != version_of(buffer)):
            self.read(buffer)
        return [
            torch.ones_like(probability) if is_on else None
            for probability, is_on in zip(buffer, self._are_on, strict=True)
        ]


def hidden_patches(masks: Tensor, grid: Sequence[int], probability: Tensor, depth: int | None = None) -> Tensor:
    """Marks the patches outside a query's mask, for the queries that are restricted.

    Args:
        masks: logits (B, Q, *, *) of any resolution.
        grid: h and w.
        probability: probability that a query is restricted.
        depth: so many maps in a row are the slices of one volume, in all of which a query is restricted or in none.

    Returns:
        Booleans (B, Q, N).
    """
    outside = F.interpolate(masks, size=grid, mode="bilinear", align_corners=False).flatten(2) <= 0
    num_slices = depth or 1
    drawn = torch.rand(len(masks) // num_slices, masks.shape[1], 1, device=masks.device)
    return outside & (drawn < probability).repeat_interleave(num_slices, dim=0)


def upscale_layers(dim: int) -> list[nn.Module]:
    """Returns the layers of an upsampling stage, (B, D, h, w) -> (B, D, 2h, 2w)."""
    return [
        nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
        nn.GELU(),
        nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False),
        ChannelNorm(dim),
    ]


def mask_mlp(dim: int) -> nn.Sequential:
    """MLP that projects queries (B, Q, D) into the space of the pixel features."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

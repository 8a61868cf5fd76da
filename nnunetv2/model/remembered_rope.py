"""timm's rotary positions of DINOv3, computed on the device once per size of the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3, make_coords_dinov3
from torch import Tensor, nn

REMEMBERED_SIZES = 64  # a training run needs one or two, prediction of whole images one per size


class RememberedRope(RotaryEmbeddingDinoV3):
    """Returns the same numbers as timm's module.

    timm makes the positions of the patches on the CPU in every forward pass and copies them to the device, for which
    the host waits until the device has finished everything it was given before.
    """

    def __init__(self, rope: RotaryEmbeddingDinoV3) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(rope.__dict__)
        self._remembered: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def get_embed(self, shape: Sequence[int] | None = None) -> Tensor:
        """Returns sines and cosines (HW, 2d) of a map of H x W patches; they are shared: do not write to them."""
        if shape is None or (self.training and self.aug_active):
            return super().get_embed(shape)
        height, width = shape
        if torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
            return self._make(height, width)
        periods, rotation = self._remembered.get((height, width), (None, None))
        if rotation is None or periods is not self.periods:  # the buffer was replaced by a move or cast
            if len(self._remembered) >= REMEMBERED_SIZES:
                self._remembered.clear()
            with torch.inference_mode(False):  # tensors remembered in prediction must be usable in training
                rotation = self._make(height, width)
            self._remembered[height, width] = (self.periods, rotation)
        return rotation

    def _make(self, height: int, width: int) -> Tensor:
        coordinates = make_coords_dinov3(
            height,
            width,
            normalize_coords=self.normalize_coords,
            grid_indexing=self.grid_indexing,
            grid_offset=self.grid_offset,
            device=self.periods.device,
        )
        return torch.cat(self._get_pos_embed_from_coords(coordinates), dim=-1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remembered": {}}  # neither copied nor saved


def remembering(rope: nn.Module) -> nn.Module:
    """Returns the module with a memory if it is timm's for DINOv3; others compute from buffers on the device."""
    return RememberedRope(rope) if type(rope) is RotaryEmbeddingDinoV3 else rope

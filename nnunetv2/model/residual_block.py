"""timm's transformer block of DINOv3 whose residual connections are one kernel each."""

from __future__ import annotations

from typing import Any

from timm.models.eva import EvaBlock
from torch import Tensor, nn

from dinov3.layers.scaled_residual import add_scaled


class ResidualBlock(EvaBlock):
    """Computes the same as timm's module, up to rounding, with its parameters under their names."""

    def __init__(self, block: EvaBlock) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__)

    def forward(self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        """Takes and returns tokens (B, N, D), see `EvaAttention`."""
        x = add_scaled(x, self.drop_path1(self.attn(self.norm1(x), rope=rope, attn_mask=attn_mask)), self.gamma_1)
        return add_scaled(x, self.drop_path2(self.mlp(self.norm2(x))), self.gamma_2)


def adding_at_once(block: Any) -> Any:
    """Returns the block with such connections if it is timm's and has a layer scale; others stay as they are."""
    return ResidualBlock(block) if type(block) is EvaBlock and block.gamma_1 is not None else block

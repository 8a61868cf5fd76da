"""Size and kind of a vision transformer, inferred from the names and shapes of its tensors.

Settings import this through the table of families, so it must load without torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_REGISTERS = ("reg_token", "storage_tokens", "register_tokens")


@dataclass(frozen=True)
class BackboneShape:
    """Size and kind of a vision transformer."""

    width: int
    """Channels D of the tokens."""
    depth: int
    """Number of blocks."""
    patch_size: int
    """Side of a patch in pixels."""
    num_registers: int = 0
    """Register (storage) tokens beside the class token."""
    is_gated: bool = False
    """True if the feed-forward networks are gated."""
    positions: str | None = "learned"
    """`learned` (embeddings), `rotary`, or None: unknown."""

    def __str__(self) -> str:
        words = [f"{self.width} wide", f"{self.depth} blocks", f"patches of {self.patch_size}"]
        words += [f"{self.num_registers} registers"] if self.num_registers else []
        words += ["gated"] if self.is_gated else []
        words += [f"{self.positions} positions"] if self.positions else []
        return ", ".join(words)

    def differs_from(self, other: BackboneShape) -> bool:
        """True if a property that is known for both shapes differs."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def shape_of(tensors: Mapping[str, Tensor]) -> BackboneShape | None:
    """Infers the shape of a transformer from tensors with timm's or Meta's names; None if they contain none."""
    blocks = [int(match[1]) for match in map(_BLOCK.match, tensors) if match]
    stem = tensors.get("patch_embed.proj.weight")
    if not blocks or stem is None or stem.ndim != 4:
        return None
    registers = next((tensors[name] for name in _REGISTERS if name in tensors), None)
    return BackboneShape(
        width=stem.shape[0],
        depth=1 + max(blocks),
        patch_size=stem.shape[-1],
        num_registers=0 if registers is None else registers.shape[-2],
        is_gated=_is_gated(tensors),
        positions=_positions(tensors),
    )


def _is_gated(tensors: Mapping[str, Tensor]) -> bool:
    if "blocks.0.mlp.fc1_g.weight" in tensors or "blocks.0.mlp.w1.weight" in tensors:
        return True
    into, out = tensors.get("blocks.0.mlp.fc1.weight"), tensors.get("blocks.0.mlp.fc2.weight")
    return into is not None and out is not None and into.shape[0] == 2 * out.shape[1]  # gate and value in one layer


def _positions(tensors: Mapping[str, Tensor]) -> str | None:
    if "pos_embed" in tensors:
        return "learned"
    return "rotary" if any(name in tensors for name in ("rope_embed.periods", *_REGISTERS)) else None

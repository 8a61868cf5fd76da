"""Feed-forward layers of a transformer block, applied to each token separately."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Two linear layers with a GELU in between.

    Args:
        in_features: Channels of the tokens, before and after.
        hidden_features: Hidden channels.
        bias: Use biases in the linear layers.
        device: Device on which parameters are created.
    """

    def __init__(
        self, in_features: int, hidden_features: int, bias: bool = True, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias, device=device)
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias, device=device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Takes and returns (..., in_features)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class SwiGLUFFN(nn.Module):
    """A linear layer (`w2`) gated by the SiLU of another (`w1`), followed by the output layer (`w3`).

    The hidden width is reduced to two thirds, so that the three matrices have about as many weights as the two of an
    `Mlp` of the given width.

    Args:
        in_features: Channels of the tokens, before and after.
        hidden_features: Hidden width of the equivalent `Mlp`.
        bias: Use biases in the linear layers.
        align_to: The hidden width is rounded up to a multiple of this, for efficient matrix kernels.
        device: Device on which parameters are created.

    Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6, arXiv:2002.05202.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        bias: bool = True,
        align_to: int = 8,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        width = int(hidden_features * 2 / 3)
        width += -width % align_to
        self.w1 = nn.Linear(in_features, width, bias=bias, device=device)
        self.w2 = nn.Linear(in_features, width, bias=bias, device=device)
        self.w3 = nn.Linear(width, in_features, bias=bias, device=device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Takes and returns (..., in_features)."""
        return self.w3(F.silu(self.w1(tokens)) * self.w2(tokens))


FFN_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": Mlp,
    "swiglu": SwiGLUFFN,
    "swiglu32": functools.partial(SwiGLUFFN, align_to=32),
    "swiglu64": functools.partial(SwiGLUFFN, align_to=64),
    "swiglu128": functools.partial(SwiGLUFFN, align_to=128),
}


def make_ffn(
    name: str, in_features: int, hidden_features: int, bias: bool = True, device: torch.device | str | None = None
) -> nn.Module:
    """Builds a feed-forward layer by its name in configurations.

    Raises:
        ValueError: If the name is not in `FFN_LAYERS`.
    """
    if name not in FFN_LAYERS:
        raise ValueError(f"ffn_layer {name!r} is unknown; choose one of {', '.join(FFN_LAYERS)}.")
    return FFN_LAYERS[name](in_features, hidden_features, bias=bias, device=device)

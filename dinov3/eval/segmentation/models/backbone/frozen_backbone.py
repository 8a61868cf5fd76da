"""Handling of frozen backbones: eval mode, and no recording of gradients.

The parameters' flags decide, not an argument, so that LoRA, full fine-tuning and later unfreezing all work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def is_trained(backbone: nn.Module) -> bool:
    """True if any parameter of the backbone requires a gradient."""
    return any(parameter.requires_grad for parameter in backbone.parameters())


def hold_in_eval_mode(backbone: nn.Module) -> None:
    """Sets eval mode unless the backbone is trained; call it after setting the mode of the owner.

    In train mode, DINOv3 rescales its position encoding at random and other transformers drop paths, which would make
    the features of a frozen backbone noisy.
    """
    if not is_trained(backbone):
        backbone.eval()


def intermediate_layers(backbone: nn.Module, image: Tensor, indices: Sequence[int], **options: Any) -> Sequence[Any]:
    """Returns features of selected blocks as maps; records gradients only if needed.

    Args:
        backbone: Has `get_intermediate_layers`.
        image: (B, C, H, W).
        indices: 0-based blocks.
        options: Further arguments of `get_intermediate_layers`.

    Returns:
        Result of `backbone.get_intermediate_layers(image, n=indices, reshape=True, **options)`. Gradients are recorded
        only if the backbone is trained or the image requires a gradient.
    """
    needs_gradient = image.requires_grad or is_trained(backbone)
    with torch.set_grad_enabled(needs_gradient and torch.is_grad_enabled()):
        return backbone.get_intermediate_layers(image, n=list(indices), reshape=True, **options)

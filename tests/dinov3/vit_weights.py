"""Vision transformers with weights that let every part have its say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dinov3.models.vision_transformer import DinoVisionTransformer

RELEASED_STYLE = {
    "layerscale_init": 1e-5,
    "n_storage_tokens": 4,
    "mask_k_bias": True,
    "norm_layer": "layernormbf16",
    "pos_embed_rope_dtype": "fp32",
    "pos_embed_rope_rescale_coords": 2.0,
}


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Fresh layer scales of 1e-5 and zero biases would hide almost all of what a block does."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            values = 0.2 + 0.8 * torch.rand(parameter.shape, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            values = 0.5 + 0.5 * torch.rand(parameter.shape, generator=generator)
        else:
            values = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                values *= 0.3
            elif "token" not in name:
                values /= parameter[0].numel() ** 0.5
        parameter.copy_(values)


def tiny_vit(**options: Any) -> DinoVisionTransformer:
    """Four blocks of 32 channels with random weights, in eval mode."""
    arguments = {**RELEASED_STYLE, "embed_dim": 32, "depth": 4, "num_heads": 2, **options}
    model = DinoVisionTransformer(**arguments)
    randomise(model)
    return model.eval()

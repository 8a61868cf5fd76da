"""Heads on made-up features: sizes of backbones, random tokens, and whole networks with a tiny backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnunetv2.model.backbone import BackboneSpec, Features
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.head import Head


def spec_of(embed_dim: int, num_blocks: int = 12, **changes: Any) -> BackboneSpec:
    """Sizes of a backbone with patches of 16, a class token and four registers."""
    sizes = {"patch_size": 16, "num_heads": embed_dim // 64, "num_prefix_tokens": 5, "in_channels": 3}
    return BackboneSpec(embed_dim=embed_dim, num_blocks=num_blocks, **sizes | changes)


SPECS = {"S": spec_of(384), "B": spec_of(768), "L": spec_of(1024, 24)}


def random_features(spec: BackboneSpec, grid: tuple[int, int], batch_size: int = 2) -> Features:
    """Tokens of as many blocks as the head reads, and an image that fits them."""
    return Features(
        image=torch.randn(batch_size, spec.in_channels, *(side * spec.patch_size for side in grid)),
        maps=[torch.randn(batch_size, spec.embed_dim, *grid) for _ in range(spec.num_maps)],
        prefix_tokens=[torch.randn(batch_size, spec.num_prefix_tokens, spec.embed_dim) for _ in range(spec.num_maps)],
    )


def num_parameters(head: type[Head], spec: BackboneSpec, num_classes: int = 2, **settings: Any) -> int:
    """Parameters of a head, without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in head(head.Config(**settings), spec, num_classes).parameters())


def with_random_statistics(module: nn.Module) -> nn.Module:
    """Gives norms scales, shifts and running statistics that are not those of the start, and weights some spread."""
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return module


def network_of(head: str, num_classes: int = 3, channels: int = 1, *, family: str = "dinov3_native", **settings: Any):
    """A network on the family's tiny backbone; `backbone_out_layers` and `tuning` may stand among the settings."""
    own = {name: settings.pop(name) for name in ("backbone_out_layers", "tuning") if name in settings}
    torch.manual_seed(0)
    return DenseViTNetwork(
        channels, num_classes, head={"name": head, "settings": settings}, backbone=family, backbone_size="tiny", **own
    )


def assert_segments_any_size_and_trains(head: str, num_classes: int, **settings: Any) -> None:
    """Images smaller than a patch and of odd sizes are segmented; one image trains everything that is trainable."""
    network = network_of(head, num_classes, **settings)
    for size in ((50, 71), (7, 5)):
        with torch.no_grad():
            logits = network.eval()(torch.randn(1, 1, *size))
        assert logits.shape == (1, num_classes, *size)
        assert logits.isfinite().all()
    output = network.train()(torch.randn(1, 1, 40, 60))
    (output * torch.randn_like(output)).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    assert any(name.startswith("head.") for name in gradients)

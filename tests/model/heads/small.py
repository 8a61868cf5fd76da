"""Settings that make each head small, and networks made of them on a miniature backbone."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor, nn

from nnunetv2.model.build import build_network
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.utilities import extensions

HEADS = extensions.names("head")
SMALL: dict[str, dict[str, Any]] = {
    "dpt": {"fusion_hidden_size": 16, "neck_hidden_sizes": [8, 16, 24, 32]},
    "eomt": {"num_queries": 7},
    "fapm": {"rank": 8, "widths": [16, 16, 32, 32], "gradient_checkpointing": False},
    "linear": {},
    "m2f": {
        "num_queries": 7,
        "hidden_dim": 64,
        "num_heads": 2,
        "dim_feedforward": 32,
        "num_encoder_layers": 1,
        "num_decoder_layers": 2,
        "gradient_checkpointing": False,
    },
    "pmt": {"num_queries": 7, "num_layers": 2},
    "primus": {},
    "primus_multiscale": {"embed_dim": 32},
    "segdino": {"width": 16},
    "segformer": {"decoder_hidden_size": 16},
    "unetr": {"decoder_channels": [32, 16, 16, 8, 8], "image_skip": True},
    "upernet": {"hidden_size": 16},
}


def small_words(head: str, **settings: Any) -> list[str]:
    """`key=value` words of a small model with a head; `settings` are further ones of the section `model`."""
    model = (
        {"backbone_size": "tiny", "pretrained": False} | SMALL.get(head, {}) | settings
    )  # users' heads have defaults
    words = (f"model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in model.items())
    return [f"model.head={head}", *words]


def small_architecture(
    head: str, *, regions: bool = False, num_axes: int = 2, channels: int = 1, **settings: Any
) -> dict[str, Any]:
    """What plans hold of a small model, as JSON keeps it."""
    config, _ = AnyHeadConfig.load(None, small_words(head, **settings))
    section = config.architecture(regions=regions, num_axes=num_axes, num_channels=channels)
    return json.loads(json.dumps(section))


def small_network(
    head: str, num_classes: int = 2, channels: int = 1, *, regions: bool = False, num_axes: int = 2, **settings: Any
) -> nn.Module:
    """A small network with fresh weights, for images or for volumes (`num_axes=3`)."""
    architecture = small_architecture(head, regions=regions, num_axes=num_axes, channels=channels, **settings)
    return build_network(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        num_classes,
    )


def loss_of(network: nn.Module, image: Tensor) -> Tensor:
    """A scalar that depends on everything that a loss would look at."""
    if extensions.find("head", network.head.name).config().kind == "dense":
        return network(image).float().square().mean()
    output = network(image, return_queries=True)
    layers = [output, *output["aux_outputs"]]
    return sum(layer[name].float().square().mean() for layer in layers for name in ("pred_logits", "pred_masks"))

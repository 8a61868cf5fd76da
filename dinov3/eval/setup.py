"""Builds the backbone of a configuration, on its device and ready for evaluation."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from dinov3.utils.devices import resolve_device
from dinov3.utils.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)


@dataclass
class ModelConfig:
    """Selection of backbone and weights."""

    config_file: str | None = None
    """YAML file of a self-supervised training, whose `student` section describes the model; instead of `dino_hub`."""
    pretrained_weights: str | None = None
    """File or URL of weights in any known format; None: the released weights of `dino_hub`."""
    dino_hub: str | None = None
    """A name of `dinov3.hub.backbones.BACKBONES`, such as dinov3_vitl16."""
    device: str | None = None
    """cpu, cuda or mps; None: CUDA if available, else the CPU."""
    pretrained: bool = True
    """False: start from random weights."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Overrides of the model's `DinoVisionTransformer` arguments, for example {drop_path_rate: 0.1}."""

    def __post_init__(self) -> None:
        if self.dino_hub is not None and self.config_file is not None:
            raise UsageError(
                f"model.dino_hub={self.dino_hub} and model.config_file={self.config_file} both name a model; keep one"
            )
        if self.pretrained_weights is not None and not self.pretrained:
            raise UsageError(
                f"model.pretrained=false asks for random weights and model.pretrained_weights="
                f"{self.pretrained_weights} for those of a file; keep one"
            )


class ModelContext(TypedDict):
    """What a caller needs to run the model."""

    autocast_dtype: torch.dtype
    """Precision of the evaluation; float32: no autocast."""
    device: torch.device


def load_model_and_context(model_config: ModelConfig, output_dir: str) -> tuple[nn.Module, ModelContext]:
    """Builds the backbone and loads its weights.

    Args:
        model_config: see its fields.
        output_dir: ignored; kept for compatibility with Meta's function.

    Returns:
        The model in evaluation mode on its device, and its context.

    Raises:
        UsageError: the model is missing or unknown, the device does not exist, or the weights are not available.
        DataError: the weight file is damaged or does not fit.
    """
    import torch

    device = resolve_device(model_config.device, setting="model.device=")
    if model_config.config_file is not None:
        model, dtype = _from_training_config(model_config)
    else:
        model, dtype = _from_hub(model_config), torch.float32
    if not model_config.pretrained:
        logger.warning("The backbone starts from random weights (model.pretrained=false)")
    return model.to(device).eval(), ModelContext(autocast_dtype=dtype, device=device)


def _from_hub(config: ModelConfig) -> nn.Module:
    from dinov3.hub.backbones import BACKBONES, Weights

    name = config.dino_hub
    if name is None:
        raise UsageError(f"No backbone is named; set model.dino_hub to one of {', '.join(BACKBONES)}")
    if name not in BACKBONES:
        raise UsageError(f"model.dino_hub={name!r} is not known; {_hint(name, list(BACKBONES))}")
    weights = config.pretrained_weights or Weights.LVD1689M
    return BACKBONES[name](pretrained=config.pretrained, weights=weights, **config.kwargs)


def _hint(name: str, known: list[str]) -> str:
    if "convnext" in name:
        return f"the ConvNeXt models of DINOv3 cannot be built here, only {', '.join(known)}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def _from_training_config(config: ModelConfig) -> tuple[nn.Module, torch.dtype]:
    import torch

    from dinov3.eval.pretraining_config import read_training_config
    from dinov3.hub.backbones import build_vision_transformer

    described = read_training_config(config.config_file)
    if config.pretrained and config.pretrained_weights is None:
        raise UsageError(
            "model.config_file describes a model without weights; set model.pretrained_weights to a file, or "
            "model.pretrained=false to start from random ones"
        )
    model = build_vision_transformer(described.arguments | config.kwargs, config.pretrained_weights)
    return model, torch.bfloat16 if described.is_bfloat16 else torch.float32

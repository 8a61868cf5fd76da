"""The saved part of a segmentation model: everything except the frozen weights of its backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from dinov3.utils.errors import DataError
from dinov3.utils.network_wrappers import unwrap

_SHOWN_KEYS = 3
_SAMPLES_PER_TENSOR = 8
_CLASS_BIASES = {"segmentation_model.1.predictor.class_embed.bias": 1, "segmentation_model.1.conv.bias": 0}
"""Names of the class biases in both heads, and the number of extra entries that are not classes."""


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of a model that the backbone's weight file does not contain.

    These are all parameters and buffers of adapter and head, and the trained parameters of the backbone: the LoRA
    updates, or all with full fine-tuning. Buffers of the backbone are omitted while any of its parameters is frozen.

    Args:
        model: Has an attribute `backbone`, like `FeatureDecoder`; may be wrapped for distributed training.

    Returns:
        The model's tensors, detached and not copied, by name in its state dict.
    """
    frozen = dict(_frozen_tensors(model))
    return {name: value.detach() for name, value in unwrap(model).state_dict().items() if name not in frozen}


def load_trained_state(model: nn.Module, state: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Loads saved weights into a model built with the same settings, whose backbone weights are already loaded.

    Args:
        model: See `trained_state`. Unchanged if there is an error.
        state: Result of `trained_state`, or a full state dict including the backbone.
        source: Origin of the state for error messages.

    Raises:
        DataError: A tensor is missing, unknown or has another shape. Only frozen tensors of the backbone may be
            missing.
    """
    model = unwrap(model)
    own, required = model.state_dict(), trained_state(model)
    shapes = [
        f"{name} is {tuple(value.shape)} and the model's {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    differences = {
        "missing": [name for name in required if name not in state],
        "unknown": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    if any(differences.values()):
        found = "; ".join(f"{_some(items)} {problem}" for problem, items in differences.items() if items)
        raise DataError(f"The weights in {source} do not fit the model: {found}. {_advice(differences, state, own)}")
    model.load_state_dict(state, strict=False)


def frozen_digest(model: nn.Module) -> str:
    """Computes a short fingerprint of the backbone's frozen tensors, to detect other weights.

    It samples eight numbers per tensor, which is cheap even for the largest backbones.
    """
    digest = hashlib.sha256()
    for name, value in _frozen_tensors(model):
        flat = value.detach().flatten()
        sample = flat[:: max(1, flat.numel() // _SAMPLES_PER_TENSOR)][:_SAMPLES_PER_TENSOR]
        digest.update(name.encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def _frozen_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields name in the model and tensor of the backbone's frozen tensors."""
    model = unwrap(model)
    backbone = model.backbone
    prefix = next(f"{name}." for name, module in model.named_modules() if module is backbone)
    is_frozen = {name: not parameter.requires_grad for name, parameter in backbone.named_parameters()}
    any_frozen = any(is_frozen.values())
    for name, value in backbone.state_dict().items():
        if is_frozen.get(name, any_frozen):  # buffers have no flag
            yield f"{prefix}{name}", value


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN_KEYS
    return ", ".join(items[:_SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _advice(differences: Mapping[str, list[str]], state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Suggests the setting that most likely differs."""
    if any("lora_" in name for name in differences["unknown"]):
        return "It was trained with LoRA: set lora.enabled=true and the same lora.target_modules"
    if any("lora_" in name for name in differences["missing"]):
        return "It was trained without LoRA: set lora.enabled=false"
    for name, others in _CLASS_BIASES.items():
        if name in state and name in own and len(state[name]) != len(own[name]):
            given, wanted = len(state[name]) - others, len(own[name]) - others
            return (
                f"It was trained with {given} classes and the model has {wanted}: set decoder_head.num_classes={given}"
            )
    return "Use the backbone and the decoder_head settings that it was trained with"

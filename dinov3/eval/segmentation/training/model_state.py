"""What of a segmentation model is saved: everything but the frozen weights of its backbone."""

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
"""Names of the biases of the classes in both heads, and how many of them are no class."""


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model that its backbone's own file does not hold.

    These are all parameters and buffers of adapter and head, and those parameters of the backbone that are trained: the
    LoRA updates, or with full fine-tuning all. Buffers of the backbone belong to its file as long as one of its
    parameters is frozen.

    Args:
        model: Has `backbone`, as `FeatureDecoder` has; may be wrapped for distributed training.

    Returns:
        The model's own tensors, detached, by their names in its state dict.
    """
    frozen = dict(_frozen_tensors(model))
    return {name: value.detach() for name, value in unwrap(model).state_dict().items() if name not in frozen}


def load_trained_state(model: nn.Module, state: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Puts saved weights into a model that was built with the same settings, its backbone loaded from its own file.

    Args:
        model: See `trained_state`. Unchanged if there is an error.
        state: What `trained_state` gave, or a whole state dict, backbone included.
        source: Where the state is from, for the message.

    Raises:
        DataError: A tensor is missing, unknown or of another shape. Only frozen tensors of the backbone may be missing.
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
    """A short fingerprint of the frozen tensors of the backbone: other weights give another one.

    Eight numbers of each tensor go into it, so that it costs nothing even for the largest backbones.
    """
    digest = hashlib.sha256()
    for name, value in _frozen_tensors(model):
        flat = value.detach().flatten()
        sample = flat[:: max(1, flat.numel() // _SAMPLES_PER_TENSOR)][:_SAMPLES_PER_TENSOR]
        digest.update(name.encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def _frozen_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names in the model and tensors of the backbone that training leaves alone."""
    model = unwrap(model)
    backbone = model.backbone
    prefix = next(f"{name}." for name, module in model.named_modules() if module is backbone)
    is_frozen = {name: not parameter.requires_grad for name, parameter in backbone.named_parameters()}
    any_frozen = any(is_frozen.values())
    for name, value in backbone.state_dict().items():
        if is_frozen.get(name, any_frozen):  # buffers have no flag of their own
            yield f"{prefix}{name}", value


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN_KEYS
    return ", ".join(items[:_SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _advice(differences: Mapping[str, list[str]], state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What to change: the setting that most probably differs."""
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

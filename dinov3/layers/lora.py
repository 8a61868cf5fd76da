"""Low-rank adaptation (LoRA) of the linear layers in the blocks of a vision transformer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn


def apply_lora(
    backbone: nn.Module,
    r: int = 8,
    lora_alpha: int = 16,
    lora_dropout: float = 0.1,
    target_modules: Sequence[str] = ("qkv", "proj"),
) -> nn.Module:
    """Adds a trainable low-rank update to selected linear layers and freezes everything else.

    The layers are replaced in place, so that the backbone keeps its class and methods. Its output is unchanged until
    the updates are trained.

    Args:
        backbone: A vision transformer, or a module that contains one, with its blocks under `blocks`.
        r: Rank of the updates.
        lora_alpha: The updates are scaled by `lora_alpha / r`.
        lora_dropout: Dropout probability, in [0, 1), of the updates' input while training.
        target_modules: Last part of the names of the linear layers within a block, such as "qkv", "proj", "fc1", "fc2".

    Returns:
        The backbone.

    Raises:
        ValueError: If the blocks have no such layer, or if the backbone accesses a layer's weight directly, so that an
            update would have no effect (timm's `*_qkvb` models).

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora.layer import Linear

    from dinov3.layers.lora_linear import LoRALinear

    # Anchored to the blocks: a bare "proj" would also adapt the convolution patch_embed.proj.
    names = "|".join(re.escape(name) for name in target_modules)
    pattern = re.compile(rf"(?:.+\.)?blocks\.\d+\.(?:.+\.)?(?:{names})")
    linear = {name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name for name in linear if pattern.fullmatch(name)}
    for target in target_modules:
        if not any(name.endswith(f".{target}") for name in chosen):
            offered = sorted({name.rpartition(".")[2] for name in linear if "blocks." in name})
            raise ValueError(
                f"LoRA was asked for {target!r}, which is no linear layer in the blocks of this backbone; "
                f"choose from: {', '.join(offered) or 'none, it has no linear layers under blocks'}."
            )
    _refuse_bypassed_layers(backbone, chosen)
    config = LoraConfig(r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, target_modules=pattern.pattern)
    adapted = inject_adapter_in_model(config, backbone)
    for name, layer in [(name, module) for name, module in adapted.named_modules() if type(module) is Linear]:
        # peft would cast half-precision inputs to float32, which autocast then casts back to the same values.
        layer.cast_input_dtype_enabled = False
        parent, _, child = name.rpartition(".")
        setattr(adapted.get_submodule(parent), child, LoRALinear(layer))
    return adapted


def _refuse_bypassed_layers(backbone: nn.Module, names: set[str]) -> None:
    for name in sorted(names):
        attention = backbone.get_submodule(name.rpartition(".")[0])
        keeps_bias_apart = getattr(attention, "q_bias", None) is not None
        if name.endswith(".qkv") and keeps_bias_apart and not getattr(attention, "qkv_bias_separate", False):
            raise ValueError(
                f"LoRA on {name} would have no effect: this backbone keeps the bias of qkv apart and reads the weight "
                f"past the layer, as timm's *_qkvb models do; choose the model of the same name without _qkvb."
            )


def merge_lora(backbone: nn.Module) -> nn.Module:
    """Merges the updates into the weights and restores plain linear layers under their original names.

    Args:
        backbone: Result of `apply_lora`, trained or not; modified in place. No-op without LoRA layers.

    Returns:
        The backbone, with unchanged output in eval mode.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, module) for name, module in backbone.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    return backbone


def add_lora_to_weights(module: nn.Module) -> None:
    """Adds the updates to the weights in place, so that the layers no longer compute them; for inference.

    Unlike with `merge_lora`, layers and parameters keep their names. Weights loaded into the module afterwards count as
    weights without updates, as checkpoints have them. No-op without LoRA layers, and where it was done already.

    Args:
        module: Contains results of `apply_lora`. Its state dict is no checkpoint as long as the updates are added.
    """
    for layer in module.modules():  # told by its attributes: importing peft takes seconds, and most networks need none
        if not hasattr(layer, "lora_A") or not hasattr(layer, "merged_adapters") or layer.merged:
            continue
        for adapter in layer.active_adapters:
            with torch.no_grad():
                layer.get_base_layer().weight.add_(layer.get_delta_weight(adapter))
            layer.merged_adapters.append(adapter)
        if not hasattr(layer, "separates_loaded_weights"):
            layer.separates_loaded_weights = layer.register_load_state_dict_pre_hook(_updates_are_separate)


def _updates_are_separate(layer: nn.Module, *_: object) -> None:
    layer.merged_adapters.clear()


def trainable_report(module: nn.Module) -> str:
    """Formats one log line with the numbers of trained and of all parameters."""
    total = sum(parameter.numel() for parameter in module.parameters())
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return f"{trained / 1e6:.3f} M of {total / 1e6:.3f} M parameters are trained ({trained / max(total, 1):.2%})"

"""Parts of a network whose cost is reported separately: encoder and decoder, backbone and head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from nnunetv2.model.vit_network import ViTNetwork

REST = "rest"  # work outside all parts: padding, resizing to the image, logits from queries


def network_parts(network: nn.Module) -> dict[str, str]:
    """Names the parts and their location in the network, in the order of the forward pass.

    Returns:
        Label of each part and its dotted path. A part may be nested in another, as the backbone in DINOv3's adapter;
        the inner part is counted separately.
    """
    if not isinstance(network, ViTNetwork):
        return {name.replace("_", " "): name for name in _children_with_parameters(network)}
    parts = {"input adapter": "input"}
    if not network.head.owns_backbone:
        parts["backbone"] = "encoder"
    labels = network.head.part_labels
    for child in _children_with_parameters(network.head):
        named = {path: label for path, label in labels.items() if f"{path}.".startswith(f"{child}.")}
        for path, label in (named or {child: child.replace("_", " ")}).items():
            parts[f"head {label}" if label in parts else label] = f"head.{path}"
    if network.fusion is not None:
        parts["depth fusion"] = "fusion"
    if network.detail is not None:
        parts["detail branch"] = "detail"
    return parts


def _children_with_parameters(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_children() if any(True for _ in child.parameters())]


def part_of_each_module(network: nn.Module, parts: Mapping[str, str]) -> dict[nn.Module, str]:
    """Maps every module of the network to the label of the innermost part that holds it, or to `REST`.

    A module with several paths, such as an encoder that the decoder references, is assigned to the first.
    """
    return {module: _label_of(path, parts) for path, module in network.named_modules()}


def parameters_of_parts(part_of: Mapping[nn.Module, str]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields every parameter once, with the label of its part."""
    seen = set()
    for module, label in part_of.items():
        for parameter in module.parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                yield label, parameter


def _label_of(path: str, parts: Mapping[str, str]) -> str:
    holders = [label for label, place in parts.items() if f"{path}.".startswith(f"{place}.")]
    return max(holders, key=lambda label: len(parts[label]), default=REST)

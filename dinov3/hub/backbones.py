"""DINOv3 vision transformers by name, with released, own or random weights.

    model = dinov3_vitl16(weights="dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth")

Names and arguments are those of Meta's hub.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dinov3.hub.architectures import SIZES, Weights, constructor_arguments, released_url
from dinov3.hub.load_weights import RGB, load_weights, with_input_channels
from dinov3.hub.read_weights import read_weights
from dinov3.models.vision_transformer import DinoVisionTransformer
from dinov3.utils.errors import UsageError

__all__ = [
    "BACKBONES",
    "Weights",
    "build_vision_transformer",
    "dinov3_vit7b16",
    "dinov3_vitb16",
    "dinov3_vith16plus",
    "dinov3_vitl16",
    "dinov3_vitl16plus",
    "dinov3_vits16",
    "dinov3_vits16plus",
]

WeightsSource = Weights | str | os.PathLike


def dinov3_vits16(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-S/16: 384 wide, 12 blocks, 21.6 million parameters.

    Args:
        pretrained: load weights; False: keep random weights.
        weights: released weights, or a file or URL in any format that `read_weights` supports. Weights for three input
            channels are adapted to `in_chans`.
        check_hash: compare the file with the hash in its name.
        **kwargs: overrides of the released model's `DinoVisionTransformer` arguments; and two arguments of Meta's hub:
            `hash`, to download the released file with another hash, and `version`, which is ignored.

    Returns:
        The model in training mode, on the CPU.

    Raises:
        UsageError: an argument is unknown, a file does not exist, the weights were not released for this size, or the
            download fails.
        DataError: the file is damaged or does not fit.
    """
    return _build("dinov3_vits16", pretrained, weights, check_hash, kwargs)


def dinov3_vits16plus(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-S+/16: 384 wide, 12 gated blocks, 28.7 million parameters; arguments as for `dinov3_vits16`."""
    return _build("dinov3_vits16plus", pretrained, weights, check_hash, kwargs)


def dinov3_vitb16(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-B/16: 768 wide, 12 blocks, 85.7 million parameters; arguments as for `dinov3_vits16`."""
    return _build("dinov3_vitb16", pretrained, weights, check_hash, kwargs)


def dinov3_vitl16(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-L/16: 1024 wide, 24 blocks, 303 million parameters; arguments as for `dinov3_vits16`.

    Weights trained on satellite images are also available; their file has a second norm, and the model is built with
    it. The format is detected from the content of a file, not its name.
    """
    return _build("dinov3_vitl16", pretrained, weights, check_hash, kwargs)


def dinov3_vitl16plus(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-L+/16: 1024 wide, 24 gated blocks, 404 million parameters; arguments as for `dinov3_vits16`."""
    return _build("dinov3_vitl16plus", pretrained, weights, check_hash, kwargs)


def dinov3_vith16plus(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-H+/16: 1280 wide, 32 gated blocks, 841 million parameters; arguments as for `dinov3_vits16`."""
    return _build("dinov3_vith16plus", pretrained, weights, check_hash, kwargs)


def dinov3_vit7b16(
    *,
    pretrained: bool = True,
    weights: WeightsSource = Weights.LVD1689M,
    check_hash: bool = False,
    **kwargs: Any,
) -> DinoVisionTransformer:
    """ViT-7B/16: 4096 wide, 40 gated blocks, 6.7 billion parameters (27 GB); arguments as for `dinov3_vits16`."""
    return _build("dinov3_vit7b16", pretrained, weights, check_hash, kwargs)


BACKBONES: dict[str, Callable[..., DinoVisionTransformer]] = {
    "dinov3_vits16": dinov3_vits16,
    "dinov3_vits16plus": dinov3_vits16plus,
    "dinov3_vitb16": dinov3_vitb16,
    "dinov3_vitl16": dinov3_vitl16,
    "dinov3_vitl16plus": dinov3_vitl16plus,
    "dinov3_vith16plus": dinov3_vith16plus,
    "dinov3_vit7b16": dinov3_vit7b16,
}


def build_vision_transformer(
    arguments: Mapping[str, Any], source: str | os.PathLike | None, *, check_hash: bool = False
) -> DinoVisionTransformer:
    """Builds a vision transformer and loads its weights.

    Args:
        arguments: arguments of `DinoVisionTransformer`. The second norm of pretraining is detected from the weights
            unless specified here.
        source: a file or URL of weights, see `read_weights`; None: random weights.
        check_hash: compare the file with the hash in its name.

    Raises:
        UsageError: an argument is unknown, or the weights are not available.
        DataError: the weights are damaged or do not fit.
    """
    known = list(inspect.signature(DinoVisionTransformer).parameters)
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"The vision transformer has no argument {name!r}; {hint}")
    if source is None:
        model = DinoVisionTransformer(**arguments)
        model.init_weights()
        return model
    state_dict = read_weights(source, check_hash=check_hash)
    arguments = {"untie_global_and_local_cls_norm": "local_cls_norm.weight" in state_dict} | dict(arguments)
    model = _without_values(arguments)
    state_dict = with_input_channels(state_dict, arguments.get("in_chans", RGB))
    shown = os.fspath(source).partition("?")[0]  # hides the query of a URL, which may be a signature that grants access
    load_weights(model, state_dict, source_name=shown)
    return model


def _without_values(arguments: Mapping[str, Any]) -> DinoVisionTransformer:
    """Builds a model with uninitialised memory: drawing random weights takes a minute for the largest model."""
    model = DinoVisionTransformer(**{**arguments, "device": "meta"})
    device = arguments.get("device")
    # Like `to_empty`, whose `empty_like` of a meta tensor makes torch import its compiler, which takes seconds.
    return model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))


def _build(
    name: str, pretrained: bool, weights: WeightsSource, check_hash: bool, overrides: Mapping[str, Any]
) -> DinoVisionTransformer:
    if isinstance(weights, str) and weights in Weights.__members__:
        weights = Weights[weights]
    overrides = dict(overrides)
    other_hash, _ = overrides.pop("hash", None), overrides.pop("version", None)
    arguments = constructor_arguments(SIZES[name]) | overrides
    if not pretrained:
        untied = {"untie_global_and_local_cls_norm": weights in SIZES[name].untied_norm}
        return build_vision_transformer(untied | arguments, None)
    source = released_url(name, weights, other_hash) if isinstance(weights, Weights) else weights
    return build_vision_transformer(arguments, source, check_hash=check_hash)

"""Where the weights of a backbone come from, and how they get into it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dinov3.hub.checkpoint_files import read_state_dict
from dinov3.hub.key_conversions import find_format, meta_to_timm, to_meta
from dinov3.hub.load_weights import compare, with_input_channels
from dinov3.hub.read_weights import backbone_in
from nnunetv2.errors import DataError, UsageError
from nnunetv2.model.backbones import TimmBackbone, find_backbone

logger = logging.getLogger(__name__)

_HUB_TIMEOUT = 10  # seconds
_SHOWN_PROBLEMS = 3


def find_weights(name: str, size: str, *, pretrained: bool, checkpoint: str | None) -> Path | None:
    """Decides where a backbone's weights come from, downloading them if they are not there yet.

    Args:
        name: family.
        size: row of the family's table.
        pretrained: take the released weights, from timm's hub or its local cache.
        checkpoint: a file of weights, or a folder as Hugging Face writes it; it goes before `pretrained`.

    Returns:
        The file of weights, or None if training starts from random ones, which the log says.

    Raises:
        UsageError: the weights cannot be had.
    """
    if checkpoint is not None:
        if not Path(checkpoint).exists():
            raise UsageError(f"model.checkpoint={checkpoint} does not exist; give a file of {name} {size} weights")
        return Path(checkpoint)
    row = find_backbone(name, size)
    if not pretrained:
        logger.warning("The %s %s backbone starts from random weights (model.pretrained=false)", name, size)
        return None
    if row.weights is None:
        raise UsageError(
            f"There are no released weights for {name} {size}: set model.pretrained=false to train it from scratch, or "
            f"model.checkpoint=FILE to take your own"
        )
    return _from_hub(f"timm/{row.timm_name}.{row.weights}")


def _from_hub(repository: str) -> Path:
    """The cached or downloaded weights of a repository on the Hugging Face hub."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, constants.SAFETENSORS_SINGLE_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        _require_reachable(constants.ENDPOINT)
        return Path(hf_hub_download(repository, constants.SAFETENSORS_SINGLE_FILE, etag_timeout=_HUB_TIMEOUT))
    except Exception as err:  # the hub's client raises errors of several libraries
        raise UsageError(
            f"The pretrained weights {repository} are not in the local cache and could not be downloaded "
            f"({type(err).__name__}: {str(err).strip() or 'no reason given'}); set model.checkpoint=FILE to use a "
            f"local file, or model.pretrained=false to train from scratch"
        ) from err


def _require_reachable(url: str) -> None:
    """Raises `OSError` within seconds if nothing answers: the hub's client would retry for half a minute."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method="HEAD"), timeout=_HUB_TIMEOUT).close()
    except HTTPError as answer:  # any status is an answer
        answer.close()


def load_backbone_weights(backbone: TimmBackbone, path: Path) -> None:
    """Fills a backbone, with or without LoRA, from a file in any form that `dinov3.hub` reads.

    DINOv3 weights may have timm's, Meta's or Hugging Face's names; those of other families need timm's. A first
    convolution for other than three channels is filled by the rule `inflate` of `InputAdapter`.

    Raises:
        UsageError: the file is not a file of weights, or its tensors do not fit exactly.
    """
    try:
        weights = _with_timm_names(backbone_in(read_state_dict(path)))
    except DataError as err:
        raise UsageError(str(err) if str(path) in str(err) else f"{path}: {err}") from err
    weights = with_input_channels(weights, backbone.in_channels)
    # LoRA keeps the layer that it adapts as `base_layer`; its own tensors are in no file.
    names = {key.replace(".base_layer.", "."): key for key in backbone.vit.state_dict() if ".lora_" not in key}
    expected = {name: backbone.vit.get_parameter(key) for name, key in names.items()}
    if problems := compare(expected, weights).problems():
        more = f" and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise UsageError(f"{path} does not fit the backbone: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name])
    logger.info("The backbone starts from the weights in %s", path)


def _with_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a DINOv3 vision transformer; others pass unchanged."""
    return dict(weights) if find_format(weights) is None else meta_to_timm(to_meta(weights))

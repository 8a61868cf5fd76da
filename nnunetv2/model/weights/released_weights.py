"""Locates or downloads the weights of a backbone."""

from __future__ import annotations

import logging
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.model.backbones import find_backbone
from nnunetv2.utilities.training_commands import programs_with_settings

logger = logging.getLogger(__name__)

_HUB_TIMEOUT = 10  # seconds
_FROM_SCRATCH = "model.pretrained=false model.tuning=full"


def find_weights(name: str, size: str, *, pretrained: bool, checkpoint: str | None, tuning: str) -> Path | None:
    """Resolves the file of a backbone's weights and downloads it if it is not cached.

    Args:
        name: family.
        size: row of the family's table.
        pretrained: use the released weights, from timm's hub or the local cache.
        checkpoint: weight file, or folder in Hugging Face's layout; overrides `pretrained`.
        tuning: which part of the backbone is trained: `frozen`, `lora` or `full`.

    Returns:
        The weight file, or None if training starts from random weights, which is logged.

    Raises:
        UsageError: the weights are not available.
    """
    row = find_backbone(name, size)
    if checkpoint is not None:
        if not Path(checkpoint).exists():
            raise UsageError(f"model.checkpoint={checkpoint} does not exist; give a file of {name} {size} weights")
        return Path(checkpoint)
    if not pretrained:
        kept = "" if tuning == "full" else f", which model.tuning={tuning} does not train; model.tuning=full does"
        logger.warning("The %s %s backbone starts from random weights (model.pretrained=false)%s", name, size, kept)
        return None
    if row.hub_repository is not None:
        return _from_hub(row.hub_repository)
    if row.request is not None:
        raise UsageError(
            f"The weights of {name} {size} cannot be downloaded without asking: {row.request} and set "
            f"model.checkpoint=FILE, or {_FROM_SCRATCH} to train from scratch"
        )
    raise UsageError(
        f"There are no released weights for {name} {size}: set {_FROM_SCRATCH} to train it from scratch, or "
        f"model.checkpoint=FILE to take your own"
    )


def _from_hub(repository: str) -> Path:
    """Returns the cached or downloaded weights of a repository on the Hugging Face hub."""
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
            f"local file, or {_FROM_SCRATCH} to train from scratch (settings of {programs_with_settings()})"
        ) from err


def _require_reachable(url: str) -> None:
    """Raises `OSError` within seconds if nothing answers: the hub's client would retry for half a minute."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(url, method="HEAD"), timeout=_HUB_TIMEOUT).close()
    except HTTPError as answer:  # any status is an answer
        answer.close()

"""Where the weights of a backbone come from, and how they get into it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nnunetv2.errors import UsageError
from nnunetv2.model.backbones import TimmBackbone, find_backbone
from nnunetv2.model.input_adapter import RGB

logger = logging.getLogger(__name__)

_HUB_TIMEOUT = 10  # seconds
_SHOWN_PROBLEMS = 3


def find_weights(name: str, size: str, *, pretrained: bool, checkpoint: str | None) -> Path | None:
    """Decides where a backbone's weights come from, downloading them if they are not there yet.

    Args:
        name: family.
        size: row of the family's table.
        pretrained: take the released weights, from timm's hub or its local cache.
        checkpoint: a file of weights; it goes before `pretrained`.

    Returns:
        The file of weights, or None if training starts from random ones, which the log says.

    Raises:
        UsageError: the weights cannot be had.
    """
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
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
    """Fills a backbone, with or without LoRA, from a file with timm's or Meta's key names.

    A first convolution for other than three channels is filled by the rule `inflate` of `InputAdapter`.

    Raises:
        UsageError: the file is not a file of weights, or its tensors do not fit exactly.
    """
    weights = _with_timm_names(_read_tensors(path))
    stem = "patch_embed.proj.weight"
    if stem in weights and weights[stem].shape[1] == RGB != backbone.in_channels:
        channels = backbone.in_channels
        weights[stem] = weights[stem][:, [c % RGB for c in range(channels)]] * (RGB / channels)
    # LoRA keeps the layer that it adapts as `base_layer`; its own tensors are in no file.
    names = {key.replace(".base_layer.", "."): key for key in backbone.vit.state_dict() if ".lora_" not in key}
    expected = {name: backbone.vit.get_parameter(key) for name, key in names.items()}
    problems = [f"{key} is missing" for key in expected if key not in weights]
    problems += [f"{key} is not part of the model" for key in weights if key not in expected]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise UsageError(f"{path} does not fit the backbone: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name])
    logger.info("The backbone starts from the weights in %s", path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, _safetensors_error()) as err:
        raise UsageError(f"{path} cannot be read as a file of weights: {str(err).splitlines()[0]}") from err
    for container in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path} holds no plain state dict (names and tensors)")
    return content


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


_META_PARTS = {  # Meta's part of a key -> timm's
    "storage_tokens": "reg_token",
    "ls1.gamma": "gamma_1",
    "ls2.gamma": "gamma_2",
    "mlp.w1.": "mlp.fc1_g.",
    "mlp.w2.": "mlp.fc1_x.",
    "mlp.w3.": "mlp.fc2.",
}
_META_UNUSED = ("rope_embed.periods", "mask_token", "attn.qkv.bias_mask")  # constants, and what only pretraining needs


def _with_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a DINOv3 file in Meta's format; other files pass unchanged."""
    if "storage_tokens" not in weights:
        return dict(weights)
    renamed = {}
    for key, tensor in weights.items():
        if key.endswith(_META_UNUSED) or key.startswith("local_cls_norm."):
            continue
        if key.endswith("attn.qkv.bias") and not tensor.any():
            continue  # zero in the released files; timm's models have none
        for theirs, ours in _META_PARTS.items():
            key = key.replace(theirs, ours)
        renamed[key] = tensor
    return renamed

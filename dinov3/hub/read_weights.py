"""Finds a DINOv3 vision transformer in a file or URL of any known format, and converts it to Meta's names."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from torch import Tensor

from dinov3.hub.checkpoint_files import read_state_dict
from dinov3.hub.downloads import local_copy
from dinov3.hub.key_conversions import to_meta
from dinov3.utils.errors import DataError

logger = logging.getLogger(__name__)

_STEMS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.weight",
    "embeddings.patch_embeddings.projection.weight",  # Hugging Face's DINOv2 and plain vision transformers
)


def read_weights(path_or_url: str | os.PathLike, *, check_hash: bool = False) -> dict[str, Tensor]:
    """Reads a DINOv3 vision transformer from a file or URL.

    The file may be Meta's, timm's or Hugging Face's, and the transformer may be part of a larger model or training
    checkpoint: it is located by its first convolution. See `read_state_dict` for supported files.

    Returns:
        Tensors with Meta's names, on the CPU.

    Raises:
        UsageError: the file does not exist, or cannot be downloaded.
        DataError: the file is damaged, would execute code, or contains something else.
    """
    path = local_copy(path_or_url, check_hash=check_hash)
    state_dict = read_state_dict(path)
    try:
        return to_meta(backbone_in(state_dict))
    except DataError as err:
        raise DataError(f"{path}: {err}") from err


def backbone_in(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Extracts the vision transformer from a larger model and strips the prefix of its names.

    Among several transformers, the teacher or average is selected. Without a transformer, tensors are returned
    unchanged.

    Raises:
        DataError: there are several transformers, and none is a teacher.
    """
    prefix = backbone_prefix(state_dict)
    inside = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
    if len(inside) < len(state_dict):
        logger.info("Of the %d tensors, the %d below %s are taken", len(state_dict), len(inside), prefix)
    return inside


def backbone_prefix(names: Iterable[str]) -> str:
    """Finds the prefix of a vision transformer's names, for example `module.backbone.`; often empty.

    Among several transformers, the teacher or average is selected.

    Raises:
        DataError: there are several transformers, and none is a teacher.
    """
    prefixes = {
        name.removesuffix(stem) for name in names for stem in _STEMS if name == stem or name.endswith(f".{stem}")
    }
    if not prefixes or "" in prefixes:
        return ""
    best = [prefix for prefix in prefixes if "teacher" in prefix or "ema" in prefix.split(".")] or list(prefixes)
    if len(best) > 1:
        raise DataError(f"There are several vision transformers in it ({', '.join(sorted(prefixes))}); save one alone")
    return best[0]

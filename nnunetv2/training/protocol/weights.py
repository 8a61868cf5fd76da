"""Description of a training's initial weights for the metrics."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

NO_WEIGHTS = "none given"
RANDOM_WEIGHTS = "random weights"
_HEAD_BYTES = 1 << 20  # size of the hashed start of a weight file
_SHORT = 12  # displayed digits of a hash


def pretrained_weights(settings: dict[str, Any] | None, file: str | os.PathLike | None = None) -> str:
    """Describes the initial weights of a network briefly; `none given` for most U-Nets.

    Args:
        settings: settings of a trainer of vision transformers, by section.
        file: file that the whole network was initialised from.
    """
    model = (settings or {}).get("model") or {}
    if file is not None:
        return _file_description(Path(file))
    if "pretrained" not in model:
        return NO_WEIGHTS
    backbone = f"{model.get('backbone')} {model.get('backbone_size')}"
    if model.get("checkpoint"):
        return f"{backbone}, {_file_description(Path(model['checkpoint']))}"
    return f"{backbone}, released weights" if model["pretrained"] else f"{backbone}, {RANDOM_WEIGHTS}"


def _file_description(path: Path) -> str:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # moved since the training began
        return path.name
    return f"{path.name} ({size} bytes, head {hashlib.sha256(head).hexdigest()[:_SHORT]})"

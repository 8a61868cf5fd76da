"""Reads the vision transformer of a self-supervised DINOv3 training from its YAML file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov3.models.vit_shapes import VIT_SHAPES
from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_text import read_yaml_text

_DEFAULTS = {"layerscale_init": 1e-5, "pos_embed_rope_dtype": "bf16"}  # values missing in the file
_SAME_NAME = (
    "patch_size",
    "in_chans",
    "qkv_bias",
    "norm_layer",
    "ffn_layer",
    "ffn_ratio",
    "ffn_bias",
    "proj_bias",
    "n_storage_tokens",
    "mask_k_bias",
    "untie_cls_and_patch_norms",
    "pos_embed_rope_base",
    "pos_embed_rope_min_period",
    "pos_embed_rope_max_period",
    "pos_embed_rope_normalize_coords",
    "pos_embed_rope_shift_coords",
    "pos_embed_rope_jitter_coords",
    "pos_embed_rope_rescale_coords",
    "pos_embed_rope_dtype",
)


@dataclass(frozen=True)
class DescribedModel:
    """A vision transformer as the configuration of its training describes it."""

    arguments: dict[str, Any]
    """Arguments of `DinoVisionTransformer`."""
    is_bfloat16: bool
    """True if it was trained in bfloat16 and is therefore evaluated in it."""


def read_training_config(path: str | os.PathLike) -> DescribedModel:
    """Reads the section `student` (the teacher has the same architecture) and `compute_precision.param_dtype`.

    Settings that only affect training, such as drop path, are skipped.

    Raises:
        UsageError: the file does not exist, is not YAML, or describes a model that cannot be built here.
    """
    content = _read_yaml(Path(path))
    student = content.get("student")
    if not isinstance(student, dict):
        raise UsageError(
            f"{path} has no section `student`; give the configuration of a self-supervised training of DINOv3, or set "
            f"model.dino_hub to a released size in place of model.config_file"
        )
    arch = student.get("arch")
    if arch not in VIT_SHAPES:
        raise UsageError(f"{path}: student.arch={arch} cannot be built; there are {', '.join(VIT_SHAPES)}")
    arguments = {**VIT_SHAPES[arch]._asdict(), **_DEFAULTS}
    arguments |= {name: student[name] for name in _SAME_NAME if name in student}
    if "layerscale" in student:
        arguments["layerscale_init"] = student["layerscale"]
    precision = content.get("compute_precision") or {}
    return DescribedModel(arguments, is_bfloat16=precision.get("param_dtype") == "bf16")


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not path.is_file():
        raise UsageError(f"model.config_file={path} does not exist; give the path of a YAML file")
    text = read_yaml_text(path)
    try:
        content = OmegaConf.to_container(OmegaConf.create(text))  # as Meta does; plain YAML reads 1e-5 as a string
    except (yaml.YAMLError, OmegaConfBaseException) as err:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(err).split())}") from err
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold `key: value` pairs")
    return content

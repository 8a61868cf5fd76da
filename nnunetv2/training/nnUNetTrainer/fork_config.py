"""Reads YAML files of the nnU-Net fork that introduced `nnUNetv2_train_vit`, and reports how they were mapped.

Such a file names the module of a model (`model.model_path`), settings of its head (`model.decoder`) and a section
`train`. The module is not imported but mapped to one of our heads. The fork trains with SGD and momentum, so the
mapped settings do, too.

Source: github.com/xujialiu/nnunet, commit 6ed9276.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinov3.utils.yaml_config import nearest
from dinov3.utils.yaml_text import read_yaml_text
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_families import FAMILIES

_DEFAULT = "default of the fork"


@dataclass(frozen=True)
class _Head:
    """Counterpart of one of the fork's modules."""

    name: str
    decoder: Mapping[str, str] = field(default_factory=dict)
    """Names of the decoder's settings: the fork's -> ours."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of our settings that the fork has no setting for."""
    difference: str = ""
    """Why the networks differ; empty: they are the same."""


_UPERNET = _Head(
    "upernet",
    {"hidden_size": "hidden_size"},
    difference="there the head classifies before the logits are enlarged; here features are enlarged in four stages",
)
_SEGFORMER = {"hidden_size": "decoder_hidden_size"}
_PRIMUS = {"embed_dim": "embed_dim", "patch_embed_size": "patch_embed_size"}
_HEADS = {
    "nnunetv2.model.model_dpt": _Head(
        "dpt", {"fusion_hidden_size": "fusion_hidden_size", "readout_type": "readout_type"}
    ),
    "nnunetv2.model.model_unetr": _Head(
        "unetr", {name: name for name in ("decoder_channels", "negative_slope", "upsample_mode")}
    ),
    "nnunetv2.model.primus": _Head("primus", _PRIMUS),
    "nnunetv2.model.model_upernet": _UPERNET,
    "nnunetv2.model.model": _UPERNET,
    "nnunetv2.model.model_segformer_0": _Head("segformer", _SEGFORMER, {"feature_strategy": "layers"}),
    "nnunetv2.model.model_segformer_1": _Head(
        "segformer",
        _SEGFORMER,
        {"feature_strategy": "layers"},
        "there two convolutional stages enlarge the head's features before they are classified",
    ),
}
_DEFAULT_MODULE = "nnunetv2.model.model_segformer_1"
# Settings of the fork's decoders without a counterpart here.
_EXTRA = {"upernet": {"pool_scales"}, "primus": {"multiscale", "interaction_indices"}}
_POOL_SCALES = [1, 2, 3, 6]
_ONE_SIZE = {"retfound": "mae_large", "visionfm": "base"}  # overrides the size in the file
_LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["qkv"]}
_TRAINING = {  # the fork's name -> our name, and the fork's default
    "initial_lr": ("lr", 1e-2),
    "weight_decay": ("weight_decay", 3e-5),
    "num_epochs": ("num_epochs", 1000),
    "num_iterations_per_epoch": ("num_iterations_per_epoch", 100),
    "num_val_iterations_per_epoch": ("num_val_iterations_per_epoch", 50),
}
_MODEL_KEYS = ("model_path", "backbone", "backbone_size", "checkpoint_path", "decoder")
_BLOCKS = {12: [2, 5, 8, 11], 24: [5, 11, 17, 23]}  # blocks that the fork's heads read, by depth of the backbone


@dataclass
class Translation:
    """A file of the fork, translated to our settings."""

    values: dict[str, dict[str, Any]]
    """Settings by section."""
    origins: dict[str, str]
    """Origin of each setting, by our dotted name: the dotted name in the file, or the fork's default."""
    remark: str
    """Differences from the fork's training, in one line."""


def is_of_the_fork(path: str | os.PathLike | None) -> bool:
    """True if a YAML file has the layout of the fork."""
    content = _content(path)
    model, train = (section if isinstance(section, Mapping) else {} for section in map(content.get, ("model", "train")))
    # A section `train` alone may be a typo of ours, `training`; its keys must be those that only the fork has.
    return "model_path" in model or ("initial_lr" in train and "head" not in model)


def translate(path: str | os.PathLike) -> Translation:
    """Translates a file of the fork to our settings.

    Raises:
        UsageError: a key or module is unknown to the fork or has no counterpart here.
    """
    reader = _Reader(path)
    reader.model()
    reader.lora()
    reader.training()
    return Translation(reader.values, reader.origins, reader.remark)


class _Reader:
    """Translates the sections of one file."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path, self.content = path, _content(path)
        self.values: dict[str, dict[str, Any]] = {"model": {}, "lora": {}, "training": {}}
        self.origins: dict[str, str] = {}
        self.remark = ""
        self._require_known("", self.content, ("model", "lora", "train"))

    def model(self) -> None:
        """Translates the backbone and the module to a backbone and a head."""
        given = self._section("model", _MODEL_KEYS)
        module = given.get("model_path") or _DEFAULT_MODULE
        if module not in _HEADS:
            raise UsageError(
                f"{self.path}: model.model_path={module} has no counterpart here; set model.head in a file without "
                f"model_path, or one of {', '.join(_HEADS)}{nearest(module, list(_HEADS))}"
            )
        self._backbone(given)
        decoder = given.get("decoder") or {}
        head = _HEADS[module]
        name = f"{head.name}_multiscale" if head.name == "primus" and decoder.get("multiscale") else head.name
        self._set("model", "head", name, "model.model_path")
        self._require_known("model.decoder.", decoder, (*head.decoder, *_EXTRA.get(head.name, ())))
        for theirs, ours in head.decoder.items():
            if theirs in decoder:
                self._set("model", ours, decoder[theirs], f"model.decoder.{theirs}")
        for ours, value in head.fixed.items():
            self._set("model", ours, value, "model.model_path")
        if decoder.get("pool_scales", _POOL_SCALES) != _POOL_SCALES:
            raise UsageError(f"{self.path}: model.decoder.pool_scales must be {_POOL_SCALES}, which the head has here")
        self._blocks(name, decoder)
        self.remark = (
            f"{self.path} is a file of the fork: {module} is read as model.head={name}"
            f"{f' (not the same network: {head.difference})' if head.difference else ''}; SGD with its learning rate, "
            f"the polynomial schedule is stepped every iteration instead of every epoch, precision is auto"
        )

    def lora(self) -> None:
        """Translates LoRA, which the fork enables by default; without it the backbone is frozen."""
        given = self._section("lora", ("enabled", *_LORA))
        is_enabled = given.get("enabled", True)
        self._set("lora", "enabled", is_enabled, "lora.enabled" if "enabled" in given else _DEFAULT)
        for name, default in _LORA.items() if is_enabled else ():
            self._set("lora", name, given.get(name, default), f"lora.{name}" if name in given else _DEFAULT)

    def training(self) -> None:
        """Translates to nnU-Net's SGD; the fork ignores its own setting for gradient clipping and uses 12."""
        given = self._section("train", (*_TRAINING, "gradient_clip"))
        for theirs, (ours, default) in _TRAINING.items():
            is_given = given.get(theirs) is not None
            value = given[theirs] if is_given else default
            self._set("training", ours, value, f"train.{theirs}" if is_given else _DEFAULT)
        for ours, value in {"optimizer": "sgd", "scheduler": "poly", "warmup_iters": 0, "gradient_clip": 12.0}.items():
            self._set("training", ours, value, _DEFAULT)

    def _backbone(self, given: Mapping[str, Any]) -> None:
        backbone = given.get("backbone") or "dinov3"
        size = _ONE_SIZE.get(backbone, given.get("backbone_size") or "large")
        self._set("model", "backbone", backbone, "model.backbone" if "backbone" in given else _DEFAULT)
        self._set("model", "backbone_size", size, "model.backbone_size" if "backbone_size" in given else _DEFAULT)
        if given.get("checkpoint_path"):
            self._set("model", "checkpoint", given["checkpoint_path"], "model.checkpoint_path")

    def _blocks(self, head: str, decoder: Mapping[str, Any]) -> None:
        model = self.values["model"]
        row = FAMILIES.get(model["backbone"], {}).get(model["backbone_size"])
        if row is None:  # reported when the settings are checked
            return
        if head == "dpt":
            self._set("model", "neck_hidden_sizes", [row.shape.width] * 4, _DEFAULT)
        if decoder.get("interaction_indices") is not None:
            blocks, origin = decoder["interaction_indices"], "model.decoder.interaction_indices"
            self._set("model", "backbone_out_layers", blocks, origin)
        elif head != "primus" and row.shape.depth in _BLOCKS:
            self._set("model", "backbone_out_layers", _BLOCKS[row.shape.depth], _DEFAULT)

    def _section(self, name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        section = self.content.get(name) or {}
        if not isinstance(section, Mapping):
            raise UsageError(f"{self.path}: {name} must hold `key: value` pairs")
        self._require_known(f"{name}.", section, known)
        return section

    def _require_known(self, prefix: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in given:
            if key not in known:
                names = [f"{prefix}{name}" for name in known]
                raise UsageError(
                    f"{self.path}: {prefix}{key} is no setting of this fork's files that has a counterpart here; known "
                    f"are {', '.join(names)}{nearest(f'{prefix}{key}', names)}"
                )

    def _set(self, section: str, name: str, value: Any, origin: str) -> None:
        self.values[section][name] = value
        self.origins[f"{section}.{name}"] = origin


def _content(path: str | os.PathLike | None) -> Mapping[str, Any]:
    """Reads the file's mapping; empty on errors, which are reported when the file is loaded."""
    import yaml

    if path is None or not Path(path).is_file():
        return {}
    try:
        content = yaml.safe_load(read_yaml_text(path))
    except (yaml.YAMLError, UsageError):
        return {}
    return content if isinstance(content, Mapping) else {}

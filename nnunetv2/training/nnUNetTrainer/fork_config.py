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
from typing import Any, NamedTuple

from dinov3.utils.config_layers import checked_value, hint_of
from dinov3.utils.config_sources import Source, written_keys
from dinov3.utils.yaml_config import nearest
from dinov3.utils.yaml_text import read_yaml_text
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_families import FAMILIES


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
_REMARKED = ("optimizer", "lr", "scheduler", "precision")
_MODEL_KEYS = ("model_path", "backbone", "backbone_size", "checkpoint_path", "decoder")
_BLOCKS = {12: [2, 5, 8, 11], 24: [5, 11, 17, 23]}  # blocks that the fork's heads read, by depth of the backbone


class _File:
    """A file of the fork, with the place of each of its keys."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path, self.content, self._written = path, _content(path), written_keys(Path(path))

    def place(self, key: str | None) -> str:
        """Begins an error message about a key; keys that a YAML merge (`<<`) brings in have no line."""
        return f"{self.path}, line {self._written[key].line}: " if key in self._written else f"{self.path}: "

    def text(self, key: str | None) -> str | None:
        """Returns the original text of a value; None if it is a list or a section."""
        return self._written[key].text if key in self._written else None

    def source(self, key: str | None) -> Source:
        """Returns line and key of a value; None: it is a default of the fork."""
        if key is None:
            return Source(1, f"{self.path}: default of the fork")
        line = f":{self._written[key].line}" if key in self._written else ""
        return Source(1, f"{self.path}{line} ({key})")

    def error(self, key: str | None, problem: str) -> UsageError:
        return UsageError(f"{self.place(key)}{key}{problem}")


class _Setting(NamedTuple):
    """One of our settings."""

    value: Any
    origin: str | None
    """Dotted name of the key of the file that it comes from; None: default of the fork."""


@dataclass
class Translation:
    """A file of the fork, translated to our settings."""

    file: _File
    module: str
    """Module that the file names."""
    head: str
    """Head that the module stands for."""
    settings: dict[str, _Setting]
    """Settings by our dotted name."""

    def layer(self, schema: type) -> dict[str, dict[str, Any]]:
        """Returns the settings by section.

        Args:
            schema: dataclass of all settings, against which they are checked.

        Raises:
            UsageError: a value has the wrong type, or the head in force has no such setting; the message names the key
                and the line of the file.
        """
        layer: dict[str, dict[str, Any]] = {}
        for key, (value, origin) in self.settings.items():
            section, _, name = key.partition(".")
            try:
                hint = hint_of(schema, key)
            except UsageError as err:
                problem = f" is a setting of the head {self.head}, which model.head of the command line replaces"
                raise self.file.error(origin, f"{problem}; remove one of them") from err
            value = checked_value(hint, value, origin or key, self.file.text(origin), self.file.place(origin))
            layer.setdefault(section, {})[name] = value
        return layer

    def sources(self) -> dict[str, Source]:
        """Returns the source of each setting, by our dotted name: file, line and key, or the fork's default."""
        return {key: self.file.source(setting.origin) for key, setting in self.settings.items()}

    def remark(self, in_force: Mapping[str, Any]) -> str:
        """Says in one line how the file is read, and what differs from the fork's training.

        Args:
            in_force: values of all settings, by our dotted name.
        """
        head = in_force["model.head"]
        difference = _HEADS[self.module].difference
        is_read = f"{self.module} is replaced by model.head={head} of the command line"
        if head == self.head:
            is_read = f"{self.module} is read as model.head={head}"
            is_read += f" (not the same network: {difference})" if difference else ""
        shown = ", ".join(f"{name}={in_force[f'training.{name}']}" for name in _REMARKED)
        steps = "the schedule is stepped every iteration, there every epoch"
        difference = f"; {steps}" if in_force["training.scheduler"] == "poly" else ""
        return f"{self.file.path} is a file of the fork: {is_read}; training with {shown}{difference}"


def is_of_the_fork(path: str | os.PathLike | None) -> bool:
    """True if a YAML file has the layout of the fork."""
    content = _content(path)
    model, train = (section if isinstance(section, Mapping) else {} for section in map(content.get, ("model", "train")))
    # A section `train` alone may be a typo of ours, `training`; its keys must be those that only the fork has.
    return "model_path" in model or ("initial_lr" in train and "head" not in model)


def translate(path: str | os.PathLike, replaced: Mapping[str, str | None]) -> Translation:
    """Translates a file of the fork to our settings.

    Args:
        path: the YAML file.
        replaced: `model.head`, `model.backbone` and `model.backbone_size` of the command line, by dotted name; None or
            absent: those of the file are in force. The fork's defaults for what is replaced are left out.

    Raises:
        UsageError: a key or module is unknown to the fork or has no counterpart here; the message names the line.
    """
    file = _File(path)
    reader = _Reader(file, replaced)
    head = reader.model()
    reader.lora()
    reader.training()
    return Translation(file, reader.module, head, reader.settings)


class _Reader:
    """Translates the sections of one file."""

    def __init__(self, file: _File, replaced: Mapping[str, str | None]) -> None:
        self.file, self.replaced = file, replaced
        self.settings: dict[str, _Setting] = {}
        self.module = _DEFAULT_MODULE
        self._require_known("", file.content, ("model", "lora", "train"))

    def model(self) -> str:
        """Translates the backbone and the module to a backbone and a head; returns the head."""
        given = self._section("model", _MODEL_KEYS)
        self.module = self._word(given, "model_path") or _DEFAULT_MODULE
        if self.module not in _HEADS:
            raise self.file.error(
                "model.model_path",
                f"={self.module} has no counterpart here; set model.head in a file without model_path, or one of "
                f"{', '.join(_HEADS)}{nearest(self.module, list(_HEADS))}",
            )
        self._backbone(given)
        head = _HEADS[self.module]
        decoder = self._section("model.decoder", (*head.decoder, *_EXTRA.get(head.name, ())))
        name = f"{head.name}_multiscale" if head.name == "primus" and self._is_multiscale(decoder) else head.name
        self._set("model.head", name, _origin(given, "model.model_path"))
        for theirs, ours in head.decoder.items():
            if theirs in decoder:
                self._set(f"model.{ours}", decoder[theirs], f"model.decoder.{theirs}")
        if decoder.get("pool_scales", _POOL_SCALES) != _POOL_SCALES:
            raise self.file.error("model.decoder.pool_scales", f" must be {_POOL_SCALES}, which the head has here")
        if decoder.get("interaction_indices") is not None:
            origin = "model.decoder.interaction_indices"
            self._set("model.backbone_out_layers", decoder["interaction_indices"], origin)
        if self.replaced.get("model.head") in (None, name):
            self._defaults_of_head(head)
        return name

    def lora(self) -> None:
        """Translates LoRA, which the fork enables by default; without it the backbone is frozen."""
        given = self._section("lora", ("enabled", *_LORA))
        is_enabled = given.get("enabled", True)
        self._set("lora.enabled", is_enabled, "lora.enabled" if "enabled" in given else None)
        for name, default in _LORA.items() if is_enabled else ():
            self._set(f"lora.{name}", given.get(name, default), f"lora.{name}" if name in given else None)

    def training(self) -> None:
        """Translates to nnU-Net's SGD; the fork ignores its own setting for gradient clipping and uses 12."""
        given = self._section("train", (*_TRAINING, "gradient_clip"))
        for theirs, (ours, default) in _TRAINING.items():
            origin = _origin(given, f"train.{theirs}")
            self._set(f"training.{ours}", default if origin is None else given[theirs], origin)
        for ours, value in {"optimizer": "sgd", "scheduler": "poly", "warmup_iters": 0, "gradient_clip": 12.0}.items():
            self._set(f"training.{ours}", value, None)

    def _backbone(self, given: Mapping[str, Any]) -> None:
        backbone = self._word(given, "backbone") or "dinov3"
        of_backbone = _origin(given, "model.backbone")
        self._set("model.backbone", backbone, of_backbone)
        if backbone in _ONE_SIZE:
            self._set("model.backbone_size", _ONE_SIZE[backbone], of_backbone)
        else:
            size = self._word(given, "backbone_size") or "large"
            self._set("model.backbone_size", size, _origin(given, "model.backbone_size"))
        if given.get("checkpoint_path"):
            self._set("model.checkpoint", given["checkpoint_path"], "model.checkpoint_path")

    def _is_multiscale(self, decoder: Mapping[str, Any]) -> bool:
        key = "model.decoder.multiscale"
        return checked_value(bool, decoder.get("multiscale", False), key, self.file.text(key), self.file.place(key))

    def _defaults_of_head(self, head: _Head) -> None:
        for ours, value in head.fixed.items():
            self._set(f"model.{ours}", value, self.settings["model.head"].origin)
        backbone, size = (
            self.replaced.get(key) or self.settings[key].value for key in ("model.backbone", "model.backbone_size")
        )
        row = FAMILIES.get(backbone, {}).get(size)
        if row is None:  # reported when the settings are checked
            return
        if head.name == "dpt":
            self._set("model.neck_hidden_sizes", [row.shape.width] * 4, None)
        is_multiscale = self.settings["model.head"].value == "primus_multiscale"
        if (head.name != "primus" or is_multiscale) and row.shape.depth in _BLOCKS:
            self.settings.setdefault("model.backbone_out_layers", _Setting(_BLOCKS[row.shape.depth], None))

    def _section(self, name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        section: Any = self.file.content
        for key in name.split("."):
            section = section.get(key) or {}
        if not isinstance(section, Mapping):
            raise self.file.error(name, " must hold `key: value` pairs")
        self._require_known(f"{name}.", section, known)
        return section

    def _word(self, given: Mapping[str, Any], name: str) -> str:
        """Reads a word of the section `model`; empty if it is absent or null."""
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            raise self.file.error(f"model.{name}", f"={value} is not accepted; give a word")
        return value or ""

    def _require_known(self, prefix: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in given:
            if key not in known:
                names = [f"{prefix}{name}" for name in known]
                raise self.file.error(
                    f"{prefix}{key}",
                    f" is no setting of this fork's files that has a counterpart here; known are {', '.join(names)}"
                    f"{nearest(f'{prefix}{key}', names)}",
                )

    def _set(self, key: str, value: Any, origin: str | None) -> None:
        self.settings[key] = _Setting(value, origin)


def _origin(section: Mapping[str, Any], key: str) -> str | None:
    """Returns the dotted name of a key that its section sets; None if it is absent, null or empty: a default."""
    return None if section.get(key.rpartition(".")[2]) in (None, "") else key


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

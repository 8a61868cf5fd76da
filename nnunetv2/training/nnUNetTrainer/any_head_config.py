"""Settings of the generic ViT trainer; head and loss are selected by name and bring their own settings."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

from dinov3.utils.config_sources import Source
from dinov3.utils.yaml_config import dotted_items, load_layers
from dinov3.utils.yaml_text import read_yaml_text
from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import HeadConfig, default_blocks, head_config_class, setting_names
from nnunetv2.training.loss.loss_config import (
    LossConfig,
    TermsConfig,
    has_settings,
    loss_config_class,
    losses_with_setting,
    main_loss,
)
from nnunetv2.training.nnUNetTrainer.fork_config import is_of_the_fork, translate
from nnunetv2.training.nnUNetTrainer.vit_config import ViTModelConfig, ViTnnUNetConfig
from nnunetv2.training.nnUNetTrainer.vit_training_config import TRAINING_CONFIGS
from nnunetv2.utilities import extensions

logger = logging.getLogger(__name__)

DEFAULT_HEAD = "dpt"
# Settings on which the fork's defaults depend.
_CHOICES_OF_FORK = ("model.head", "model.backbone", "model.backbone_size")
_UNKNOWN = re.compile(r"no setting '(\w+)\.(\w+)'")


@dataclass
class NamedHeadModelConfig(ViTModelConfig):
    """Backbone and head."""

    head: str = DEFAULT_HEAD
    """Name of the head; nnUNetv2_train_vit -h lists them. The settings of the head are added to this section."""

    @property
    def head_name(self) -> str:
        return self.head


@dataclass
class AnyHeadConfig(ViTnnUNetConfig):
    """All settings of one training; `resolved` adds those of the selected head and loss."""

    file_name: ClassVar[str] = "config.yaml"

    model: NamedHeadModelConfig = field(default_factory=NamedHeadModelConfig)

    @classmethod
    def resolved(cls, path: str | os.PathLike | None, overrides: Sequence[str]) -> type[AnyHeadConfig]:
        """Returns the class with the settings of the head and loss that the file and the overrides select.

        Args:
            path: YAML file; None: no file.
            overrides: `key=value` words, which take precedence over the file.

        Raises:
            UsageError: head or loss are unknown or incompatible.
        """
        head = _chosen("model.head", path, overrides) or DEFAULT_HEAD
        return config_for(head, _chosen("training.loss", path, overrides))

    @classmethod
    def load(
        cls, path: str | os.PathLike | None = None, overrides: Sequence[str] = ()
    ) -> tuple[AnyHeadConfig, dict[str, Source]]:
        """Extends the base class: also reads files of the fork that this command originates from."""
        if not is_of_the_fork(path):
            try:
                return super().load(path, overrides)
            except UsageError as err:
                raise UsageError(f"{err}{_owners_hint(str(err), path, overrides)}") from err
        translation = translate(path, {key: _chosen(key, None, overrides) for key in _CHOICES_OF_FORK})
        head = _chosen("model.head", None, overrides) or translation.head
        schema = config_for(head, _chosen("training.loss", None, overrides))
        config, sources = load_layers(schema, translation.layer(schema), translation.sources(), overrides)
        logger.info("%s", translation.remark(dotted_items(config)))
        return config, sources


def _owners_hint(message: str, path: str | os.PathLike | None, overrides: Sequence[str]) -> str:
    """Names the heads or losses that have a setting which the chosen one lacks; empty for other errors."""
    found = _UNKNOWN.search(message)
    if found is None:
        return ""
    section, name = found.groups()
    head = _chosen("model.head", path, overrides) or DEFAULT_HEAD
    if section == "model":
        owners = [each for each in extensions.names("head") if name in _settings_of(each)]
        return f" - model.{name} is a setting of {', '.join(owners)}, and model.head is {head}" if owners else ""
    losses = losses_with_setting(section, name)
    loss = main_loss(_chosen("training.loss", path, overrides), head_config_class(head).kind)
    owned = f"{section}.{name} is a setting of training.loss={' or '.join(losses)}"
    return f" - {owned}, and the loss of model.head={head} is {loss}" if losses else ""


def _settings_of(head: str) -> tuple[str, ...]:
    try:
        return setting_names(head_config_class(head))
    except UsageError:  # a user's file that is wrong owns no setting, and is not what the message is about
        return ()


def load_any_head_config(path: str | os.PathLike | None = None, overrides: Sequence[str] = ()) -> AnyHeadConfig:
    """Loads the settings: defaults < YAML file < `key=value` words; see `load_config` for errors."""
    return AnyHeadConfig.load(path, overrides)[0]


def config_for(head: str, loss: str | None) -> type[AnyHeadConfig]:
    """Returns the class of all settings for a head and a loss; None: the default loss of the head."""
    head_config = head_config_class(head)
    return _composed(head, head_config, loss_config_class(loss, head_config.kind))


_made: dict[tuple[str, type, type], type[AnyHeadConfig]] = {}


def _composed(head: str, head_config: type[HeadConfig], loss_config: type[LossConfig]) -> type[AnyHeadConfig]:
    """Caches the class, so that configuration objects with equal settings compare equal."""
    key = (head, head_config, loss_config)
    if key not in _made:
        sections: list[Any] = [
            _section("model", _model_section(head, head_config)),
            _section("training", _training_section(head_config)),
        ]
        if has_settings(loss_config):
            sections.append(_section(loss_config.section, _loss_section(loss_config)))
        _made[key] = make_dataclass(
            "AnyHeadConfig", sections, bases=(AnyHeadConfig,), namespace={"__module__": __name__}
        )
    return _made[key]


def _section(name: str, kind: type) -> tuple[str, type, Any]:
    return name, kind, field(default_factory=kind)


def _model_section(head: str, head_config: type[HeadConfig]) -> type[NamedHeadModelConfig]:
    clashes = sorted(set(setting_names(head_config)) & set(setting_names(NamedHeadModelConfig)))
    if clashes:
        raise UsageError(f"The head {head} has settings with names that all heads share: {', '.join(clashes)}")
    defaults = [("head", str, field(default=head))]
    if head_config.num_blocks != 0:
        defaults.append(("backbone_out_layers", str | list[int], field(default=default_blocks(head_config))))
    return make_dataclass(
        "ModelConfig",
        defaults,
        bases=(head_config, NamedHeadModelConfig),
        namespace={
            "__post_init__": ViTModelConfig.__post_init__,
            "__doc__": head_config.__doc__,
            "__module__": __name__,
        },
    )


def _loss_section(loss_config: type[LossConfig]) -> type:
    """The settings of a loss, with those of the terms if they share a section."""
    if loss_config.section != TermsConfig.section:
        return loss_config
    namespace = {"__doc__": loss_config.__doc__, "__module__": __name__}
    return make_dataclass("LossConfig", [], bases=(loss_config, TermsConfig), namespace=namespace)


def _training_section(head_config: type[HeadConfig]) -> type:
    base = TRAINING_CONFIGS[head_config.kind]
    if unknown := sorted(head_config.training.keys() - set(setting_names(base))):
        raise UsageError(f"{head_config.__qualname__}.training has {', '.join(unknown)}, no setting of training")
    types = {name: kind.type for name, kind in base.__dataclass_fields__.items()}
    defaults = [(name, types[name], field(default=value)) for name, value in head_config.training.items()]
    namespace = {"__doc__": base.__doc__, "__module__": __name__}
    return make_dataclass("TrainingConfig", defaults, bases=(base,), namespace=namespace)


def _chosen(key: str, path: str | os.PathLike | None, overrides: Sequence[str]) -> str | None:
    """Reads one setting before the schema is known; errors in the file are reported when it is loaded."""
    import yaml

    words = [word.partition("=")[2] for word in overrides if word.partition("=")[0] == key]
    if words:
        return None if words[-1] in ("null", "~", "") else words[-1]
    if path is None or not Path(path).is_file():
        return None
    try:
        value = yaml.safe_load(read_yaml_text(path))
    except (yaml.YAMLError, UsageError):
        return None
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None

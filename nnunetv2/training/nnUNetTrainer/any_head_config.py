"""Settings of the trainer of any head: those of the head and of the loss that the settings themselves name."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from dinov3.utils.config_sources import Source
from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import HeadConfig, head_config_class, setting_names
from nnunetv2.training.loss.loss_config import LossConfig, has_settings, loss_config_class
from nnunetv2.training.nnUNetTrainer.fork_config import is_of_the_fork, translate
from nnunetv2.training.nnUNetTrainer.vit_config import ViTModelConfig, ViTnnUNetConfig
from nnunetv2.training.nnUNetTrainer.vit_training_config import TRAINING_CONFIGS

logger = logging.getLogger(__name__)

DEFAULT_HEAD = "dpt"
_OF_FILE = 1  # rank of a setting's source


@dataclass
class NamedHeadModelConfig(ViTModelConfig):
    """Backbone and head."""

    head: str = DEFAULT_HEAD
    """Name of the head; nnUNetv2_train_vit -h lists them. Each has settings of its own, which stand beside this one."""

    @property
    def head_name(self) -> str:
        return self.head


@dataclass
class AnyHeadConfig(ViTnnUNetConfig):
    """All settings of one training; `resolved` adds those of the head and the loss that are chosen."""

    file_name: ClassVar[str] = "config.yaml"

    model: NamedHeadModelConfig = field(default_factory=NamedHeadModelConfig)

    @classmethod
    def resolved(cls, path: str | os.PathLike | None, overrides: Sequence[str]) -> type[AnyHeadConfig]:
        """The class with the settings of the head and the loss that a file and words name.

        Args:
            path: YAML file; None: there is none.
            overrides: `key=value` words, which take precedence over the file.

        Raises:
            UsageError: there is no such head or loss, or they do not fit each other.
        """
        head = _chosen("model.head", path, overrides) or DEFAULT_HEAD
        return config_for(head, _chosen("training.loss", path, overrides))

    @classmethod
    def load(
        cls, path: str | os.PathLike | None = None, overrides: Sequence[str] = ()
    ) -> tuple[AnyHeadConfig, dict[str, Source]]:
        """Does what the base class does, and reads files of the fork that this command comes from, too."""
        if not is_of_the_fork(path):
            return super().load(path, overrides)
        translation = translate(path)
        logger.info("%s", translation.remark)
        with TemporaryDirectory() as folder:
            ours = Path(folder) / Path(path).name
            ours.write_text(json.dumps(translation.values), encoding="utf-8")  # which is YAML as well
            try:
                config, sources = super().load(ours, overrides)
            except UsageError as err:
                raise UsageError(str(err).replace(str(ours), str(path))) from err
        origins = {key: f"{path}: {origin}" for key, origin in translation.origins.items()}
        return config, {
            key: Source(source.rank, origins.get(key, source.place)) if source.rank == _OF_FILE else source
            for key, source in sources.items()
        }


def load_any_head_config(path: str | os.PathLike | None = None, overrides: Sequence[str] = ()) -> AnyHeadConfig:
    """The settings: defaults < YAML file < `key=value` words; see `load_config` for the errors."""
    return AnyHeadConfig.load(path, overrides)[0]


def config_for(head: str, loss: str | None) -> type[AnyHeadConfig]:
    """The class of all settings of a training with a head and a loss; None: the loss that suits the head."""
    head_config = head_config_class(head)
    return _composed(head, head_config, loss_config_class(loss, head_config.kind))


_made: dict[tuple[str, type, type], type[AnyHeadConfig]] = {}


def _composed(head: str, head_config: type[HeadConfig], loss_config: type[LossConfig]) -> type[AnyHeadConfig]:
    """Always the same class for the same settings, so that configuration objects compare equal."""
    key = (head, head_config, loss_config)
    if key not in _made:
        sections: list[Any] = [
            _section("model", _model_section(head, head_config)),
            _section("training", _training_section(head_config)),
        ]
        if has_settings(loss_config):
            sections.append(_section(loss_config.section, loss_config))
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
        defaults.append(("backbone_out_layers", str | list[int], field(default=head_config.blocks)))
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


def _training_section(head_config: type[HeadConfig]) -> type:
    base = TRAINING_CONFIGS[head_config.kind]
    if unknown := sorted(head_config.training.keys() - set(setting_names(base))):
        raise UsageError(f"{head_config.__qualname__}.training has {', '.join(unknown)}, no setting of training")
    types = {name: kind.type for name, kind in base.__dataclass_fields__.items()}
    defaults = [(name, types[name], field(default=value)) for name, value in head_config.training.items()]
    namespace = {"__doc__": base.__doc__, "__module__": __name__}
    return make_dataclass("TrainingConfig", defaults, bases=(base,), namespace=namespace)


def _chosen(key: str, path: str | os.PathLike | None, overrides: Sequence[str]) -> str | None:
    """The value of a setting before all settings are known; what is wrong in the file is reported when it is loaded."""
    import yaml

    words = [word.partition("=")[2] for word in overrides if word.partition("=")[0] == key]
    if words:
        return None if words[-1] in ("null", "~", "") else words[-1]
    if path is None or not Path(path).is_file():
        return None
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None

"""Settings of the DINOv3 + Mask2Former trainer; shared settings are in `vit_config.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from dinov3.eval.segmentation.settings.training import M2FTrainConfig
from dinov3.utils.config_sources import DEFAULT, Source
from dinov3.utils.yaml_config import load_config, require_choice
from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import head_config_class, setting_names
from nnunetv2.training.nnUNetTrainer.vit_config import LoRAConfig, ViTModelConfig, ViTnnUNetConfig

M2FLoRAConfig = LoRAConfig

_TYPES = ("m2f", "eomt")
_M2F, _EOMT = (head_config_class(name) for name in _TYPES)


@dataclass
class _TypedModelConfig(ViTModelConfig):
    type: str = "m2f"
    """Head: m2f (adapter, pixel decoder and mask transformer) or eomt (queries in the last blocks of the backbone;
    about four times faster; of the settings below it uses only num_queries, num_joint_blocks and
    num_upscale_blocks)."""


@dataclass
class M2FModelConfig(_M2F, _EOMT, _TypedModelConfig):
    """Backbone, pixel decoder and mask transformer."""

    @property
    def head_name(self) -> str:
        return self.type

    def __post_init__(self) -> None:
        require_choice("model.type", self.type, _TYPES)
        for field_ in fields(self):
            if field_.name in _foreign(self.type):
                setattr(self, field_.name, field_.default)
        ViTModelConfig.__post_init__(self)


@dataclass
class M2FnnUNetConfig(ViTnnUNetConfig):
    """All settings of one training."""

    file_name: ClassVar[str] = "m2f_config.yaml"

    model: M2FModelConfig = field(default_factory=M2FModelConfig)
    m2f_train: M2FTrainConfig = field(default_factory=M2FTrainConfig)

    @classmethod
    def check_given(cls, values: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
        """Extends the base class: also rejects settings of the other head type.

        As there, a word may override the file: `model.type=eomt` takes precedence over a file written for m2f.
        """
        super().check_given(values, sources)
        model, of_type = values["model"], sources.get("model.type", DEFAULT)
        for field_ in fields(M2FModelConfig):
            name, source = field_.name, sources.get(f"model.{field_.name}", DEFAULT)
            is_foreign = name in _foreign(model["type"]) and model[name] != field_.default
            if is_foreign and source.rank >= of_type.rank:
                other = next(kind for kind in _TYPES if kind != model["type"])
                raise UsageError(
                    f"model.{name}={model[name]} ({source.place}) is a setting of model.type={other} alone, and "
                    f"model.type={model['type']} ({of_type.place}); leave one of them out"
                )

    def without_effect(self) -> dict[str, str]:
        reason = f"without effect, as model.type={self.model.type}"
        return super().without_effect() | {f"model.{name}": reason for name in sorted(_foreign(self.model.type))}


def _foreign(head: str) -> set[str]:
    """Settings of `model` that only the other head has."""
    own = set(setting_names(head_config_class(head)))
    of_all = {name for kind in (_M2F, _EOMT) for name in setting_names(kind)}
    blocks = {"backbone_out_layers"} if head_config_class(head).num_blocks == 0 else set()
    return of_all - own | blocks


def load_m2f_config(path: str | None = None, overrides: Sequence[str] = ()) -> M2FnnUNetConfig:
    """Loads the settings: defaults < YAML file < `key=value` words; see `load_config` for errors."""
    return load_config(M2FnnUNetConfig, path, overrides)

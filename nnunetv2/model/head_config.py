"""Settings of a head, and what training needs to know of it before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.utilities import extensions

ANY_NUMBER = -1

_NETWORKS = {
    "dense": "nnunetv2.model.dense_network.DenseViTNetwork",
    "queries": "nnunetv2.model.query_network.QueryNetwork",
}


@dataclass
class HeadConfig:
    """Base of the settings of all heads; use `DenseHeadConfig` or `QueryHeadConfig`.

    The settings are fields with their meaning in a string below each. They stand in the section `model` of a file,
    beside those of the backbone. Checks belong in `__post_init__`, those that need the backbone in `check_backbone`;
    both raise `UsageError`.
    """

    kind: ClassVar[str]
    """`dense` or `queries`: which losses fit."""
    num_blocks: ClassVar[int] = 4
    """How many blocks of the backbone are read; `ANY_NUMBER`: one or more, which `BackboneSpec.num_maps` tells; 0: the
    head runs the backbone itself."""
    blocks: ClassVar[str] = "FOUR_EVEN_INTERVALS"
    """Default of the setting `backbone_out_layers`."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Settings that change neither the weights' shapes nor predictions, in which the folds of a model may differ."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Defaults of the section `training` that suit this head, for example `{"lr": 1e-3}`."""
    not_in_network: ClassVar[tuple[str, ...]] = ()
    """Settings that the plans leave out, as they have one possible value."""
    network_class: ClassVar[str | None] = None
    """Dotted name of the network in plans, for heads with a network of their own name, see `FlatNames`."""

    def check_backbone(self, shape: BackboneShape, place: str) -> None:
        """Rejects settings that do not fit a backbone.

        Args:
            shape: of the backbone.
            place: what to call it in a message, such as `dinov3 large`.

        Raises:
            UsageError: they do not fit.
        """


@dataclass
class DenseHeadConfig(HeadConfig):
    """Settings of a head that classifies pixels."""

    kind: ClassVar[str] = "dense"


@dataclass
class QueryHeadConfig(HeadConfig):
    """Settings of a head that proposes classified masks."""

    kind: ClassVar[str] = "queries"

    num_queries: int = 100
    """Masks proposed per image; at least the number of classes."""

    def __post_init__(self) -> None:
        require_range("model.num_queries", self.num_queries, 1)


def head_config_class(name: str) -> type[HeadConfig]:
    """The class of the settings of a head.

    Raises:
        UsageError: there is no such head, or its class has no settings of the right kind.
    """
    extension = extensions.find("head", name)
    found = extension.config()
    if not (isinstance(found, type) and issubclass(found, (DenseHeadConfig, QueryHeadConfig))):
        raise UsageError(
            f"{extension.path}: {extension.definition}.Config must derive from DenseHeadConfig or QueryHeadConfig of "
            f"nnunetv2.model.head_config and be a dataclass"
        )
    return found


def setting_names(config: type[HeadConfig]) -> tuple[str, ...]:
    """Names of the settings of a head."""
    return tuple(field.name for field in fields(config))


def architecture_of_head(name: str, config: HeadConfig) -> tuple[str, dict[str, Any]]:
    """What plans hold of a head.

    Returns:
        Dotted name of the network around it, and the keyword arguments by which the network builds it.
    """
    settings = {key: getattr(config, key) for key in setting_names(type(config)) if key not in config.not_in_network}
    if config.network_class is not None:
        return config.network_class, settings
    head = {"name": name, "settings": settings}
    extension = extensions.find("head", name)
    if extension.is_external:  # opening the model elsewhere needs the file, which is not run unless installed there
        head |= {"file": extension.path.name, "sha256": extension.sha256}
    return _NETWORKS[config.kind], {"head": head}


def block_choices(config: type[HeadConfig]) -> tuple[str, ...]:
    """Names that the setting `backbone_out_layers` accepts, beside lists of block numbers."""
    return {1: ("LAST",), 4: ("FOUR_EVEN_INTERVALS", "FOUR_LAST"), 0: (config.blocks,)}.get(
        config.num_blocks, ("LAST", "FOUR_EVEN_INTERVALS", "FOUR_LAST")
    )


def fits_number(config: type[HeadConfig], blocks: Sequence[int]) -> bool:
    """Whether a list of blocks is as long as the head needs."""
    return len(blocks) >= 1 if config.num_blocks == ANY_NUMBER else len(blocks) == config.num_blocks

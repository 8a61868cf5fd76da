"""Settings of a head, and what training reads from them before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import DataError, UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.utilities import extensions

ANY_NUMBER = -1
EVEN_INTERVALS = "EVEN_INTERVALS"  # as many blocks as the head reads, the last one among them

_NETWORKS = {
    "dense": "nnunetv2.model.dense_network.DenseViTNetwork",
    "queries": "nnunetv2.model.query_network.QueryNetwork",
}


@dataclass
class HeadConfig:
    """Base of the settings of all heads; use `DenseHeadConfig` or `QueryHeadConfig`.

    Each setting is a field with a docstring below it. In a config file, they are part of the section `model`, next to
    those of the backbone. Checks belong in `__post_init__`, checks against the backbone in `check_backbone`; both raise
    `UsageError`.
    """

    kind: ClassVar[str]
    """`dense` or `queries`; determines which losses are valid."""
    num_blocks: ClassVar[int] = 4
    """Number of backbone blocks that the head reads. `ANY_NUMBER`: one or more, see `BackboneSpec.num_maps`. 0: the
    head runs the backbone itself."""
    blocks: ClassVar[str] = "FOUR_EVEN_INTERVALS"
    """Default of the setting `backbone_out_layers`; of heads that read other than one or four blocks it is
    `EVEN_INTERVALS`."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Settings that affect training only, not weight shapes or predictions; folds of a model may differ in them."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Defaults of this head for the section `training`, for example `{"lr": 1e-3}`."""
    not_in_network: ClassVar[tuple[str, ...]] = ()
    """Settings that the plans omit because only one value is possible."""
    network_class: ClassVar[str | None] = None
    """Dotted name of the network in plans, for heads with a named network, see `FlatNames`."""

    def check_backbone(self, shape: BackboneShape, place: str) -> None:
        """Rejects settings that are incompatible with a backbone.

        Args:
            shape: shape of the backbone.
            place: name of the backbone in error messages, such as `dinov3 large`.

        Raises:
            UsageError: settings and backbone are incompatible.
        """

    def logit_stride(self, shape: BackboneShape) -> float | None:
        """Side in pixels of what one logit or mask value stands for, on the image that the backbone sees.

        None: not known. Used to advise against structures that are too thin for the head.

        Args:
            shape: shape of the backbone.
        """
        return None

    def network_settings(self, shape: BackboneShape, trained: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings as the plans hold them.

        Args:
            shape: shape of the backbone.
            trained: arguments of the network that the model folder was trained with; empty: it holds no checkpoint. A
                default that changed between versions must not change such a network.
        """
        return {name: getattr(self, name) for name in setting_names(type(self)) if name not in self.not_in_network}


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


def find_head(head: Mapping[str, Any]) -> extensions.Extension:
    """Finds the head that plans describe.

    Args:
        head: `name`; for a user's head, also `file`, the name of its file.

    Raises:
        DataError: a user's head is not registered here; the message names the missing file and where it is looked for.
        UsageError: a head of the package is not registered.
    """
    name, file = head["name"], head.get("file")
    if file is None or name in extensions.names("head"):
        return extensions.find("head", name)
    folders = " or ".join(map(str, extensions.extension_folders()))
    place = f"{folders}, named" if folders else "a folder and name that"
    raise DataError(
        f"The model's head {name!r} is defined in a file of its author, {file}, which is not installed here; put the "
        f"file into {place} in the environment variable {extensions.EXTENSIONS}"
    )


def head_config_class(name: str) -> type[HeadConfig]:
    """Returns the settings class of a head.

    Raises:
        UsageError: the head is unknown, or its `Config` is not a dataclass of the right kind.
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
    """Returns the names of a head's settings."""
    return tuple(field.name for field in fields(config))


def architecture_of_head(
    name: str, config: HeadConfig, shape: BackboneShape, trained: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Describes a head for the plans; `shape` and `trained` as in `HeadConfig.network_settings`.

    Returns:
        Dotted name of the surrounding network, and its keyword arguments for the head.
    """
    settings = config.network_settings(shape, trained)
    if config.network_class is not None:
        return config.network_class, settings
    head = {"name": name, "settings": settings}
    extension = extensions.find("head", name)
    if extension.is_external:  # another machine needs the file to open the model; it runs only if installed there
        head |= {"file": extension.path.name, "sha256": extension.sha256}
    return _NETWORKS[config.kind], {"head": head}


def block_choices(config: type[HeadConfig]) -> tuple[str, ...]:
    """Returns the names that `backbone_out_layers` accepts in addition to lists of block numbers."""
    fours = ("FOUR_EVEN_INTERVALS", "FOUR_LAST")
    named = {0: (config.blocks,), 1: ("LAST",), 4: fours, ANY_NUMBER: ("LAST", *fours)}
    return named.get(config.num_blocks, (EVEN_INTERVALS,))


def default_blocks(config: type[HeadConfig]) -> str:
    """Default of `backbone_out_layers`: `config.blocks`, unless that is another number of blocks."""
    choices = block_choices(config)
    return config.blocks if config.blocks in choices else choices[0]


def fits_number(config: type[HeadConfig], blocks: Sequence[int]) -> bool:
    """True if the list has as many blocks as the head needs."""
    return len(blocks) >= 1 if config.num_blocks == ANY_NUMBER else len(blocks) == config.num_blocks

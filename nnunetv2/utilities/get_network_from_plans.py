"""Build the network described by the `architecture` entry of a configuration."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.allowed_imports import import_allowed
from nnunetv2.utilities.class_lookup import find_by_name

logger = logging.getLogger(__name__)


def get_network_from_plans(
    arch_class_name: str,
    arch_kwargs: Mapping[str, Any],
    arch_kwargs_req_import: Sequence[str],
    input_channels: int,
    output_channels: int,
    allow_init: bool = True,
    deep_supervision: bool | None = None,
) -> nn.Module:
    """Build a network with newly initialised weights.

    The class is called with `input_channels`, `num_classes`, `arch_kwargs` and, unless it is None,
    `deep_supervision`. If the network has a method `initialize`, it is applied to each of its modules.

    Args:
        arch_class_name: dotted path of a `torch.nn.Module` in one of the allowed packages.
        arch_kwargs: keyword arguments of that class, as JSON data.
        arch_kwargs_req_import: keywords whose value is a dotted path, to be replaced by the object that it names.
        output_channels: number of outputs, see `LabelManager.num_segmentation_heads`.
        allow_init: whether to apply `initialize`.
        deep_supervision: whether the network returns outputs at several resolutions.

    Raises:
        DataError: a name does not exist or is outside the allowed packages, in which case nothing is imported.
    """
    keywords = dict(arch_kwargs)
    for name in arch_kwargs_req_import:
        if keywords.get(name) is not None:
            keywords[name] = _import_argument(name, keywords[name])
    if deep_supervision is not None:
        keywords["deep_supervision"] = deep_supervision
    network_class = _network_class(arch_class_name)
    network = network_class(input_channels=input_channels, num_classes=output_channels, **keywords)
    if allow_init and hasattr(network, "initialize"):
        network.apply(network.initialize)
    return network


def _import_argument(keyword: str, path: str) -> Any:
    found = import_allowed(path)
    if found is None:
        raise DataError(f"The plans' architecture names {path!r} as {keyword}, which does not exist")
    return found


def _network_class(path: str) -> type[nn.Module]:
    found = import_allowed(path)
    if found is None:
        name = path.rpartition(".")[2]
        try:  # the package has moved classes between modules, and old plans name their former place
            found = find_by_name("network architecture", name)
        except UsageError as err:
            raise DataError(f"The plans' architecture names the network {path!r}, which does not exist; {err}") from err
        logger.warning("The network %s has moved; using %s.%s", path, found.__module__, name)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise DataError(f"The plans' architecture names {path!r} as network, which is not a torch.nn.Module")
    return found

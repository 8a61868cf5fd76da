"""Make the network that the `architecture` entry of a configuration describes."""

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
    """Builds a network with fresh weights.

    The class is called with `input_channels`, `num_classes`, `arch_kwargs` and, unless it is None,
    `deep_supervision`. If the network has a function `initialize`, it is applied to each of its modules.

    Args:
        arch_class_name: dotted path of a `torch.nn.Module` in one of the allowed packages.
        arch_kwargs: keywords of that class, as JSON can hold them.
        arch_kwargs_req_import: those among them whose value is a dotted path and stands for what it names.
        output_channels: number of outputs, see `LabelManager.num_segmentation_heads`.
        allow_init: whether `initialize` is applied.
        deep_supervision: whether the network returns outputs at several resolutions.

    Raises:
        DataError: a name is not in an allowed package or does not exist; raised before anything is imported from
            a package that is not allowed.
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
        try:  # classes have moved between the modules of this package in the past
            found = find_by_name("network architecture", name)
        except UsageError as err:
            raise DataError(f"The plans' architecture names the network {path!r}, which does not exist; {err}") from err
        logger.warning("The network %s has moved; using %s.%s", path, found.__module__, name)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise DataError(f"The plans' architecture names {path!r} as network, which is not a torch.nn.Module")
    return found

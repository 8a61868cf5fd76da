"""Builds a network from the `architecture` entry of the plans; only allow-listed names are resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans


def build_network(
    network_class_name: str,
    arch_kwargs: Mapping[str, Any],
    kw_requires_import: Sequence[str],
    input_channels: int,
    output_channels: int,
    allow_init: bool = True,
    deep_supervision: bool | None = None,
) -> nn.Module:
    """Builds a network with fresh weights; the first three arguments are the entry's three values.

    See `get_network_from_plans` for the arguments and errors.
    """
    return get_network_from_plans(
        network_class_name,
        arch_kwargs,
        kw_requires_import,
        input_channels,
        output_channels,
        allow_init=allow_init,
        deep_supervision=deep_supervision,
    )

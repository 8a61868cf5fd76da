"""Builds the networks of trainers, with the current or the old hook signature, and switches their deep supervision."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

from torch import nn

from nnunetv2.model.build import build_network
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


def build_planned_network(
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool | None,
) -> nn.Module:
    """Builds the network of a configuration's architecture entry, with random weights."""
    return build_network(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        num_input_channels,
        num_output_channels,
        deep_supervision=enable_deep_supervision,
    )


def call_network_hook(
    hook: Callable[..., nn.Module],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool,
) -> nn.Module:
    """Calls the network hook of a trainer.

    A hook without a parameter `plans_manager` has the old signature: class name, arguments and names of arguments to
    import, instead of the two managers.
    """
    common = (num_input_channels, num_output_channels, enable_deep_supervision)
    if "plans_manager" in inspect.signature(hook).parameters:
        return hook(plans_manager, configuration_manager, *common)
    warnings.warn(
        f"{hook.__qualname__} in {hook.__module__} has the old signature; change it to (plans_manager, "
        f"configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True)",
        DeprecationWarning,
        stacklevel=3,
    )
    return hook(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        *common,
    )


def switch_deep_supervision(network: nn.Module, enabled: bool) -> None:
    """Sets `network.decoder.deep_supervision` if the network has that attribute."""
    decoder = getattr(network, "decoder", None)
    if hasattr(decoder, "deep_supervision"):
        decoder.deep_supervision = enabled

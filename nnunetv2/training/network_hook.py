"""Call a trainer's `build_network_architecture`, in today's form or in the one that older trainers define."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

from torch import nn

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


def call_network_hook(
    owner: str,
    hook: Callable[..., nn.Module],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool,
) -> nn.Module:
    """Returns the network that the hook makes.

    A hook without a parameter `plans_manager` is of the old form: class name, arguments and names of arguments to
    import, instead of the two managers.

    Args:
        owner: class name of the trainer, for the warning.
    """
    common = (num_input_channels, num_output_channels, enable_deep_supervision)
    if "plans_manager" in inspect.signature(hook).parameters:
        return hook(plans_manager, configuration_manager, *common)
    warnings.warn(
        f"{owner}.build_network_architecture has the old signature; change it to (plans_manager, configuration_manager, "
        f"num_input_channels, num_output_channels, enable_deep_supervision=True)",
        DeprecationWarning,
        stacklevel=3,
    )
    return hook(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        *common,
    )

"""Checks that a configuration can be trained with a 2-D network on a pretrained backbone."""

from __future__ import annotations

from nnunetv2.errors import UsageError
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_FROM_0_TO_1 = {"RGBTo01Normalization", "NoNormalization"}  # with noNorm, the user is responsible for the range


def require_flat_configuration(plans: PlansManager, configuration: str) -> None:
    """Rejects a configuration whose patches are not 2-D, or that is a later stage of a cascade.

    Raises:
        UsageError: the message lists the suitable configurations of the plans.
    """
    chosen = plans.get_configuration(configuration)
    if len(chosen.patch_size) != 2:
        problem = "is 3-D"
    elif chosen.previous_stage_name is not None:
        problem = "is the second stage of a cascade"
    else:
        return
    managers = {name: plans.get_configuration(name) for name in plans.available_configurations}
    fitting = [n for n, m in managers.items() if len(m.patch_size) == 2 and m.previous_stage_name is None]
    raise UsageError(
        f"The configuration {configuration} {problem}, and this trainer's network takes 2-D images; "
        f"use {' or '.join(fitting) or 'plans with a 2-D configuration, these have none'}"
    )


def require_intensities_for(input_norm: str, configuration: ConfigurationManager) -> None:
    """Rejects normalisation constants such as ImageNet's if intensities are not in [0, 1].

    Args:
        input_norm: `dataset`, `imagenet` and so on, see `nnunetv2.model.input_adapter.InputAdapter`.
        configuration: configuration whose normalisation schemes produced the intensities.

    Raises:
        UsageError: the message lists the unsuitable schemes.
    """
    unfit = sorted(set(configuration.normalization_schemes) - _FROM_0_TO_1)
    if input_norm != "dataset" and unfit:
        raise UsageError(
            f"model.input_norm={input_norm} expects intensities in [0, 1], and the plans use {', '.join(unfit)}; "
            f"set model.input_norm=dataset, or name the channels rgb_to_0_1 or noNorm in dataset.json and plan anew"
        )

"""Checks that a configuration can be trained with a network on a pretrained backbone."""

from __future__ import annotations

from nnunetv2.errors import UsageError
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_IMAGE = 2  # axes of a patch
_FROM_0_TO_1 = {"RGBTo01Normalization", "NoNormalization"}  # with noNorm, the user is responsible for the range


def require_fitting_configuration(plans: PlansManager, configuration: str, *, takes_volumes: bool) -> None:
    """Rejects a later stage of a cascade and, if the network takes slices only, 3-D patches.

    Raises:
        UsageError: the message lists the suitable configurations of the plans.
    """
    managers = {name: plans.get_configuration(name) for name in plans.available_configurations}
    problems = {name: _problem(manager, takes_volumes=takes_volumes) for name, manager in managers.items()}
    if problems[configuration] is None:
        return
    fitting = " or ".join(name for name, problem in problems.items() if problem is None)
    taken = "images or volumes of one stage" if takes_volumes else "2-D images"
    raise UsageError(
        f"The configuration {configuration} {problems[configuration]}, and the network of this model takes {taken}; "
        f"use {fitting or 'plans with a 2-D configuration, these have none'}"
    )


def _problem(configuration: ConfigurationManager, *, takes_volumes: bool) -> str | None:
    if configuration.previous_stage_name is not None:
        return "is the second stage of a cascade"
    if len(configuration.patch_size) == _IMAGE or takes_volumes:
        return None
    return "is 3-D"


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

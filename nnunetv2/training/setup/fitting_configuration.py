"""Checks that a configuration can be trained with a network on a pretrained backbone."""

from __future__ import annotations

from nnunetv2.errors import UsageError
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_FROM_0_TO_1 = {"RGBTo01Normalization", "NoNormalization"}  # with noNorm, the user is responsible for the range


def require_place_for_labels(plans: PlansManager, configuration: str, channel_adaptation: str) -> None:
    """Rejects a second stage of a cascade, unless a trained convolution takes the labels of the first as channels.

    No kernel of a pretrained backbone is a start for such channels.

    Args:
        channel_adaptation: see `nnunetv2.model.input_adapter.InputAdapter`.

    Raises:
        UsageError: the message lists the suitable configurations of the plans.
    """
    managers = {name: plans.get_configuration(name) for name in plans.available_configurations}
    if managers[configuration].previous_stage_name is None or channel_adaptation == "conv1x1":
        return
    fitting = " or ".join(name for name, manager in managers.items() if manager.previous_stage_name is None)
    raise UsageError(
        f"The configuration {configuration} is the second stage of a cascade, whose labels of the first stage are "
        f"further channels; set model.channel_adaptation=conv1x1, or use {fitting}"
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

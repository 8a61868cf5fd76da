"""Plans for fine-tuning a checkpoint of nnssl, made from nnU-Net's plans of the dataset."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.errors import UsageError
from nnunetv2.pretraining.nnssl_checkpoint import NNSSLCheckpoint

CONFIGURATION = "3d_fullres"
ADAPTATION_MODES = ("fixed", "default_nnunet", "no_resample", "like_pretrained")
# The first of them that exists is the base.
BASE_PLANS = tuple(f"nnUNet{planner}Plans" for planner in ("", *(f"ResEncUNet{size}" for size in ("", "M", "L", "XL"))))
_BATCH_SIZE = 2
_NORMALIZATION = "ZScoreNormalization"
_NUM_AXES = 3

Spacing = list[float] | list[None]


def new_spacing_from_mode(
    mode: str,
    default_spacing: Sequence[float],
    pretrained_spacing: Sequence[float | None] | None,
    override_spacing: Sequence[float] | None = None,
) -> Spacing:
    """Chooses the spacing to resample to, in mm, in the order of the plans' axes.

    Args:
        mode: one of `ADAPTATION_MODES`.
        default_spacing: of nnU-Net's plans.
        pretrained_spacing: of the pre-training; None: it kept the spacing of each image.
        override_spacing: for `fixed`.

    Returns:
        Three numbers; three times None: each case keeps its own.

    Raises:
        UsageError: a ValueError: the mode is unknown, or has no spacing.
    """
    if mode not in ADAPTATION_MODES:
        raise UsageError(f"There is no adaptation mode {mode}; choose one of {', '.join(ADAPTATION_MODES)}")
    if mode == "fixed":
        if override_spacing is None or len(override_spacing) != _NUM_AXES or min(override_spacing) <= 0:
            given = "nothing" if override_spacing is None else " ".join(f"{value:g}" for value in override_spacing)
            raise UsageError(
                f"The adaptation mode fixed needs a spacing of three numbers above 0, in mm and in the plans' order of "
                f"axes, and {given} was given; set it by -os, for example -os 1 1 1"
            )
        return [float(value) for value in override_spacing]
    if mode == "no_resample":
        return [None] * _NUM_AXES
    if mode == "like_pretrained" and is_fixed(pretrained_spacing):
        return [float(value) for value in pretrained_spacing]
    return [float(value) for value in default_spacing]


def is_fixed(spacing: Sequence[float | None] | None) -> bool:
    """True if the images of a pre-training were resampled to one spacing."""
    return spacing is not None and all(value is not None for value in spacing)


def plans_like_checkpoint(
    base: Mapping[str, Any],
    configuration: Mapping[str, Any],
    checkpoint: NNSSLCheckpoint,
    *,
    path: str | None,
    name: str,
    spacing: Spacing,
) -> dict[str, Any]:
    """Makes plans with the checkpoint's network, patch size and normalisation.

    Args:
        base: nnU-Net's plans of the dataset.
        configuration: its `3d_fullres`, without inheritance.
        checkpoint: to start from.
        path: of the checkpoint.
        name: part of the plans' name.
        spacing: to resample to.

    Returns:
        Plans with the one configuration `3d_fullres`.
    """
    plan, channels = checkpoint.plan, len(configuration["normalization_schemes"])
    folder = folder_name(spacing, channels)
    changes = {
        "data_identifier": folder,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": _BATCH_SIZE,
        "patch_size": list(plan.recommended_patch_size),
        "spacing": spacing,
        "normalization_schemes": [_NORMALIZATION] * channels,
        "architecture": {
            "network_class_name": plan.architecture,
            "arch_kwargs": copy.deepcopy(plan.architecture_arguments),
            "_kw_requires_import": list(plan.arguments_to_import) if plan.arguments_to_import else None,
        },
    }
    return {
        **copy.deepcopy(dict(base)),
        "plans_name": f"ptPlans__{name}____{folder}",
        "configurations": {CONFIGURATION: {**copy.deepcopy(dict(configuration)), **changes}},
        "pretrain_info": pretrain_info(checkpoint, path, name),
    }


def plans_with_weights(
    base: Mapping[str, Any], configuration: Mapping[str, Any], checkpoint: NNSSLCheckpoint, *, path: str, name: str
) -> dict[str, Any]:
    """Makes plans that keep nnU-Net's network, to which the weights are adapted; arguments as above."""
    return {
        **copy.deepcopy(dict(base)),
        "plans_name": f"ptPlans_dynamic__{name}",
        "configurations": {CONFIGURATION: copy.deepcopy(dict(configuration))},
        "pretrain_info": {**pretrain_info(checkpoint, path, name), "pt_architecture_kwargs": {}},
    }


def pretrain_info(checkpoint: NNSSLCheckpoint, path: str | None, name: str) -> dict[str, Any]:
    """What plans keep of a checkpoint, for the trainers and for those who read them."""
    plan = checkpoint.plan
    return {
        "checkpoint_path": path,
        "checkpoint_name": name,
        "key_to_encoder": plan.key_to_encoder,
        "key_to_stem": plan.key_to_stem,
        "keys_to_in_proj": list(plan.keys_to_in_proj),
        "key_to_lpe": plan.key_to_lpe,
        "pt_num_in_channels": plan.num_channels,
        "pt_used_patchsize": list(plan.configuration["patch_size"]),
        "pt_recommended_downstream_patchsize": list(plan.recommended_patch_size),
        "citations": [dict(each) for each in checkpoint.citations],
    }


def folder_name(spacing: Spacing, channels: int) -> str:
    """Name of the folder of preprocessed cases, which all pre-trainings of one spacing share."""
    sides = "_".join("None" if side is None else f"{side:.2f}" for side in spacing)
    return f"Spacing__{sides}___Norm__{'_'.join('Z' * channels)}"

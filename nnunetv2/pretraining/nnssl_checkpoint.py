"""Checkpoints of nnssl, DKFZ's self-supervised pre-training of networks for volumes: what they hold, safely read.

Source: https://github.com/MIC-DKFZ/nnssl, which writes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nnunetv2.errors import DataError
from nnunetv2.utilities.checkpoint_io import load_checkpoint

_WEIGHTS, _PLAN = "network_weights", "nnssl_adaptation_plan"
_NUM_AXES = 3


@dataclass(frozen=True)
class AdaptationPlan:
    """What a checkpoint says of the network that it holds, for those who train it further."""

    architecture: str
    """Name of the network's class, or of a preset: `ResEncL`, `PrimusM` and so on."""
    architecture_arguments: dict[str, Any] | None
    """Arguments of the class; None for presets."""
    arguments_to_import: tuple[str, ...]
    """Arguments that are dotted names of classes."""
    pretrain_plan: dict[str, Any]
    """Plans of the pre-training, with one configuration."""
    num_channels: int
    """Input channels of the network."""
    recommended_patch_size: tuple[int, int, int]
    """Voxels per axis, for fine-tuning."""
    key_to_encoder: str
    """Prefix of the encoder's tensors, without a dot at its end; the same for the others."""
    key_to_stem: str
    keys_to_in_proj: tuple[str, ...]
    """Layers whose weight has the input channels; several names may be one tensor."""
    key_to_lpe: str | None
    """Name of the learned positional embedding; None: there is none."""
    pretrain_patch_size: tuple[int, int, int] | None
    """Voxels per axis that the positional embedding is for, where it is not that of the configuration."""

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration of the pre-training."""
        return next(iter(self.pretrain_plan["configurations"].values()))

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Voxels per axis of the patches that the network was trained on."""
        return self.pretrain_patch_size or tuple(self.configuration["patch_size"])


@dataclass(frozen=True)
class NNSSLCheckpoint:
    """A checkpoint, on the CPU."""

    plan: AdaptationPlan
    weights: dict[str, Tensor]
    """Tensors of the whole network of the pre-training, by name."""
    citations: tuple[Mapping[str, Any], ...]
    """Works to cite."""


def read_nnssl_checkpoint(path: str | os.PathLike) -> NNSSLCheckpoint:
    """Reads a checkpoint; nothing in the file is executed.

    Raises:
        DataError: the file is missing or damaged, holds code, or has no complete adaptation plan.
    """
    content = load_checkpoint(path)
    for key, purpose in ((_WEIGHTS, "weights"), (_PLAN, "plan that says how to use them")):
        if not isinstance(content.get(key), dict):
            raise DataError(
                f"{path} is no checkpoint of nnssl: it has no {key}, the {purpose}; use a file that nnssl published or "
                f"wrote with its adaptation plan"
            )
    weights = {name: value for name, value in content[_WEIGHTS].items() if isinstance(value, Tensor)}
    return NNSSLCheckpoint(_plan(content[_PLAN], path), weights, tuple(content.get("citations") or ()))


def _plan(content: dict[str, Any], path: str | os.PathLike) -> AdaptationPlan:
    try:
        architecture, patch = content["architecture_plans"], content["recommended_downstream_patchsize"]
        plan = AdaptationPlan(
            architecture=str(architecture["arch_class_name"]),
            architecture_arguments=architecture["arch_kwargs"],
            arguments_to_import=tuple(architecture["arch_kwargs_requiring_import"] or ()),
            pretrain_plan=dict(content["pretrain_plan"]),
            num_channels=int(content["pretrain_num_input_channels"]),
            recommended_patch_size=_size(patch),
            key_to_encoder=str(content["key_to_encoder"]),
            key_to_stem=str(content["key_to_stem"]),
            keys_to_in_proj=tuple(content["keys_to_in_proj"]),
            key_to_lpe=content["key_to_lpe"],
            pretrain_patch_size=_size(content["pretrain_patch_size"]) if content.get("pretrain_patch_size") else None,
        )
        _size(plan.configuration["patch_size"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as err:
        reason = f"it has no {err}" if isinstance(err, KeyError) else " ".join(str(err).split())
        raise DataError(
            f"The adaptation plan in {path} is incomplete: {reason or type(err).__name__}; have it rewritten by nnssl"
        ) from err
    return plan


def _size(values: Any) -> tuple[int, int, int]:
    size = tuple(int(value) for value in values)
    if len(size) != _NUM_AXES or min(size) < 1:
        raise ValueError(f"{values} is no size of three axes")
    return size

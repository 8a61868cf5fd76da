"""Takes encoder, stem and positional embedding of a pre-trained network over into another one.

Decoder and outputs of the pre-training are left behind. The tensors that a network has under several names are matched
by each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2.errors import DataError, UsageError
from nnunetv2.pretraining.nnssl_checkpoint import NNSSLCheckpoint

_SHOWN = 3
_KERNEL = slice(2, None)  # axes of a convolution's weight


@dataclass(frozen=True)
class Transfer:
    """Names of the network's tensors by what became of them, in the order of its state dict."""

    copied: tuple[str, ...]
    """as they are in the checkpoint"""
    adapted: tuple[str, ...]
    """to other channels, kernels or patch sizes"""
    random: tuple[str, ...]
    """left as the network was initialised"""

    def __str__(self) -> str:
        return (
            f"{len(self.copied)} tensors copied, {len(self.adapted)} adapted, {len(self.random)} initialised randomly"
        )


@dataclass(frozen=True)
class Target:
    """Where a network keeps what is taken over; prefixes without a dot at their end."""

    key_to_encoder: str
    key_to_stem: str
    key_to_lpe: str | None
    num_channels: int
    """of its input"""
    patch_size: tuple[int, ...]
    """voxels per axis"""


def transfer_weights(network: nn.Module, target: Target, checkpoint: NNSSLCheckpoint, *, adapts: bool) -> Transfer:
    """Fills a network in place.

    Args:
        network: of the training.
        target: where its parts are.
        checkpoint: with the weights.
        adapts: the network has depth and kernels of its own: what fits is taken over, kernels are averaged along axes
            where the network's have length 1, and the rest stays random. False: encoder and stem must fit exactly.

    Raises:
        UsageError: the input channels cannot be adapted.
        DataError: tensors do not fit, or none does.
    """
    plan = checkpoint.plan
    ours = network.state_dict()
    given = _renamed(
        checkpoint.weights, [(plan.key_to_encoder, target.key_to_encoder), (plan.key_to_stem, target.key_to_stem)]
    )
    changed = set()
    if target.num_channels != plan.num_channels:
        layers = [f"{key}.weight" for key in plan.keys_to_in_proj if f"{key}.weight" in checkpoint.weights]
        prefixes = [(plan.key_to_encoder, target.key_to_encoder), (plan.key_to_stem, target.key_to_stem)]
        weights = {name: checkpoint.weights[name] for name in layers}
        spread = {name: spread_over_channels(w, plan.num_channels, target.num_channels) for name, w in weights.items()}
        given |= (renamed := _renamed(spread, prefixes))
        changed |= renamed.keys()
    if target.key_to_lpe is not None and plan.key_to_lpe is not None:
        given[target.key_to_lpe] = _position_embedding(checkpoint, target, ours)
        if tuple(plan.patch_size) != tuple(target.patch_size):
            changed.add(target.key_to_lpe)
    if adapts:
        adapted = {name: _with_kernel_of(ours[name], value) for name, value in given.items() if name in ours}
        changed |= {name for name, value in adapted.items() if value is not given[name]}
        given = {name: value for name, value in adapted.items() if value.shape == ours[name].shape}
        _require_any_convolution(given, target, ours)
    else:
        _require_fit(given, target, ours)
    network.load_state_dict(given, strict=False)
    taken = [name for name in ours if name in given]
    return Transfer(
        tuple(name for name in taken if name not in changed),
        tuple(name for name in taken if name in changed),
        tuple(name for name in ours if name not in given),
    )


def spread_over_channels(weight: Tensor, pretrained: int, channels: int) -> Tensor:
    """Repeats the weight (F, 1, *kernel) of a first layer over n channels and divides it by n.

    The response to n equal channels is that of the pre-trained layer to one of them.

    Raises:
        UsageError: the layer has more than one channel.
    """
    if pretrained != 1:
        raise UsageError(
            f"The checkpoint was trained on {pretrained} channels, and the dataset has {channels}; only checkpoints of "
            f"one channel can be adapted to another number"
        )
    return weight.repeat(1, channels, *(1 for _ in weight.shape[_KERNEL])) / channels


def resize_position_embedding(embedding: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Resamples the tokens (1, N, C) of a grid, trilinearly, to those of another grid.

    Args:
        embedding: tokens in the order of the grid's axes, the last one running fastest.
        before: tokens per axis.
        after: tokens per axis of the result.
    """
    grid = embedding.transpose(1, 2).unflatten(2, tuple(before))
    resized = F.interpolate(grid, size=tuple(after), mode="trilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


def _renamed(weights: Mapping[str, Tensor], prefixes: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Tensors under a first prefix of each pair, named by the second."""
    return {
        f"{new}{name.removeprefix(old)}": value
        for old, new in prefixes
        for name, value in weights.items()
        if name.startswith(f"{old}.")
    }


def _position_embedding(checkpoint: NNSSLCheckpoint, target: Target, ours: Mapping[str, Tensor]) -> Tensor:
    plan = checkpoint.plan
    embedding = checkpoint.weights.get(plan.key_to_lpe)
    if embedding is None:
        raise DataError(f"The checkpoint has no positional embedding {plan.key_to_lpe}, which its plan names")
    kernels = [
        w
        for name, w in checkpoint.weights.items()
        if name.startswith(plan.key_to_stem) and name.endswith("proj.weight")
    ]
    grids = [
        tuple(int(side / step) for side, step in zip(size, kernels[0].shape[_KERNEL], strict=True))
        for size in (plan.patch_size, target.patch_size)
    ]
    num_class_tokens = embedding.shape[1] - torch.Size(grids[0]).numel()
    first, tokens = embedding[:, :num_class_tokens], embedding[:, num_class_tokens:]
    if grids[0] != grids[1]:
        tokens = resize_position_embedding(tokens, *grids)
    has_class_token = ours[target.key_to_lpe].shape[1] > tokens.shape[1]
    return torch.cat((first, tokens), dim=1) if has_class_token else tokens


def _with_kernel_of(ours: Tensor, theirs: Tensor) -> Tensor:
    """Averages a kernel along the axes where ours has length 1; others stay as they are."""
    if ours.ndim != theirs.ndim or ours.shape[_KERNEL] == theirs.shape[_KERNEL]:
        return theirs
    axes = [axis for axis in range(2, ours.ndim) if ours.shape[axis] == 1 < theirs.shape[axis]]
    return theirs.mean(dim=axes, keepdim=True) if axes else theirs


def _require_any_convolution(given: Mapping[str, Tensor], target: Target, ours: Mapping[str, Tensor]) -> None:
    """Normalisations may fit any network; weights of the encoder tell whether it is of the same kind."""
    if any(value.ndim > 1 and name.startswith(f"{target.key_to_encoder}.") for name, value in given.items()):
        return
    wanted = next(name for name, value in ours.items() if name.startswith(target.key_to_encoder) and value.ndim > 1)
    raise DataError(
        f"No weight of the checkpoint's encoder fits this network, whose encoder begins with {wanted} "
        f"{list(ours[wanted].shape)}; plan with a network of the checkpoint's kind and width, or use "
        f"nnUNetv2_preprocess_like_nnssl"
    )


def _require_fit(given: Mapping[str, Tensor], target: Target, ours: Mapping[str, Tensor]) -> None:
    parts = tuple(f"{key}." for key in (target.key_to_encoder, target.key_to_stem))
    problems = [f"{name} is missing" for name in ours if name.startswith(parts) and name not in given]
    problems += [f"{name} is not in the network" for name in given if name not in ours]
    problems += [
        f"{name} is {list(value.shape)} instead of {list(ours[name].shape)}"
        for name, value in given.items()
        if name in ours and value.shape != ours[name].shape
    ]
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"The checkpoint does not fit this network: {', '.join(problems[:_SHOWN])}{more}; use the plans that "
            f"nnUNetv2_preprocess_like_nnssl made for it, or a trainer that adapts weights"
        )

"""Initialises a training with the weights of another one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

# Classification layers of U-Nets, whose size depends on the dataset. Heads declare theirs in `classifier`.
SEGMENTATION_LAYERS = (".seg_layers.",)


def require_pretrained_file(fname: str) -> None:
    """Raises `UsageError` if the file does not exist."""
    if not Path(fname).is_file():
        raise UsageError(
            f"There is no file {fname}; -pretrained_weights takes the path of an nnU-Net checkpoint (.pth)"
        )


def load_pretrained_weights(network: nn.Module, fname: str, verbose: bool = False) -> None:
    """Copies all weights of a checkpoint into `network` except those of the segmentation layers.

    Args:
        network: same architecture as in the checkpoint, possibly with another number of classes.
        fname: nnU-Net checkpoint; its `network_weights` are used.
        verbose: log every tensor that was copied.

    Raises:
        UsageError: the file is missing, is not a training checkpoint, or its network differs.
        DataError: the file is damaged.
    """
    from dinov3.utils.network_wrappers import unwrap
    from nnunetv2.training.state.checkpoint import shortened, weight_differences
    from nnunetv2.utilities.checkpoint_io import load_checkpoint

    require_pretrained_file(fname)
    content = load_checkpoint(fname)
    if "network_weights" not in content:
        raise UsageError(f"{fname} is not an nnU-Net checkpoint: it has no network_weights, only {sorted(content)[:5]}")
    target = unwrap(network)
    own = target.state_dict()
    wanted = {name: value for name, value in own.items() if not _is_segmentation_layer(target, name)}
    given = {name: value for name, value in content["network_weights"].items() if name in wanted}
    problems = weight_differences(given, wanted)
    if problems:
        raise UsageError(
            f"The pretrained network in {fname} differs from the one to train: {shortened(problems)}. It needs "
            f"the same architecture (nnUNetv2_move_plans_between_datasets), only the number of classes may differ"
        )
    target.load_state_dict(own | given)
    logger.info(
        "Loaded %d of %d tensors from %s; left as initialised: %s",
        len(given),
        len(own),
        fname,
        ", ".join(name for name in own if name not in given) or "none",
    )
    if verbose:
        for name, value in given.items():
            logger.info("  %s %s", name, tuple(value.shape))


def _is_segmentation_layer(network: nn.Module, name: str) -> bool:
    is_classifier = getattr(network, "is_classifier", None)
    if is_classifier is not None:
        return is_classifier(name)
    return any(part in name for part in SEGMENTATION_LAYERS)

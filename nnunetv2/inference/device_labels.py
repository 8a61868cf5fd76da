"""Turn logits into labels on the GPU that computed them, so that only the labels are copied to main memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

from nnunetv2.preprocessing.resampling.slab_resizing import SlabResizing
from nnunetv2.utilities.device_memory import free_bytes, reports_memory
from nnunetv2.utilities.helpers import empty_cache
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

_LARGEST_SHARE_OF_FREE_MEMORY = 0.5
_MAX_BYTES_PER_SLAB = 2**30  # keeps any GPU busy
_LARGEST_LABEL = torch.iinfo(torch.int16).max


def labels_on_device(
    logits: torch.Tensor,
    device: torch.device,
    new_shape: Sequence[int],
    resampling: Callable,
    spacings: tuple[Sequence[float], Sequence[float]],
    label_manager: LabelManager,
) -> np.ndarray | None:
    """Resample logits and convert them to labels on a device, slab by slab.

    Args:
        logits: (K, *spatial), on the device or in main memory.
        resampling: that of a configuration.
        spacings: of the logits and of the labels, in mm.
        label_manager: one that converts each voxel by itself; called with slabs (K, *slab).

    Returns:
        Labels of `new_shape`; None if the resampling is not the default one, or memory does not suffice.
    """
    resizing = SlabResizing.of(resampling, logits, new_shape, *spacings)
    largest = max(label_manager.regions_class_order or [0]) if label_manager.has_regions else len(logits)
    if resizing is None or largest > _LARGEST_LABEL:
        return None
    available = _LARGEST_SHARE_OF_FREE_MEMORY * free_bytes(device) if reports_memory(device) else _MAX_BYTES_PER_SLAB
    try:
        dtype = torch.uint8 if largest < 256 else torch.int16
        labels = torch.empty(resizing.new_shape, dtype=dtype, device=device)
        for place, slab in resizing.slabs(logits, device, int(min(available, _MAX_BYTES_PER_SLAB))):
            labels[place] = label_manager.convert_logits_to_segmentation(slab)
        return labels.cpu().numpy()
    except RuntimeError as err:
        if not is_out_of_memory(err):
            raise
    # After the handler, whose exception keeps the tensors of the failed attempt alive.
    empty_cache(device)
    logger.info("The memory of %s does not suffice to resample the logits there; resampling them on the CPU", device)
    return None

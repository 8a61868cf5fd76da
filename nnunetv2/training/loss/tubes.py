"""Tubes for Skeleton Recall: the centrelines of labelled structures, two pixels wider on each side.

A target with tubes has further channels after those of the labels:

    labels: (B, 2, *spatial): the label map; the label of the tube, 0 outside
    regions: (B, R [+ 1] + R, *spatial): the regions; with an ignore label, the ignored pixels; a tube per region

Source: Kirchhoff et al. 2024, "Skeleton Recall Loss for Connectivity Conserving and Resource Efficient Segmentation of
Thin Tubular Structures", section 3.1, arXiv:2404.03010. There, ignored pixels count as foreground and regions fail.
"""

from __future__ import annotations

import numpy as np
import torch

from nnunetv2.training.loss.loss_config import LabelTask

_DILATIONS = 2  # of the skeleton, by the cross


def num_label_channels(task: LabelTask) -> int:
    """Number of channels of a target without tubes."""
    if not task.has_regions:
        return 1
    return task.num_outputs + (task.ignore_label is not None)


def without_tubes(target: torch.Tensor, task: LabelTask) -> torch.Tensor:
    """The channels of the labels of a target (B, C, *spatial) with or without tubes."""
    return target[:, : num_label_channels(task)]


def tubes_of(target: torch.Tensor, task: LabelTask) -> torch.Tensor:
    """The channels of the tubes of a target (B, C, *spatial); made here if it has none.

    Returns:
        (B, 1, *spatial) labels or (B, R, *spatial) regions.
    """
    num_channels = num_label_channels(task)
    if target.shape[1] > num_channels:
        return target[:, num_channels:]
    tubes = [with_tubes(sample, task)[num_channels:] for sample in target.cpu()]
    return torch.stack(tubes).to(target.device)


def with_tubes(segmentation: torch.Tensor, task: LabelTask) -> torch.Tensor:
    """Appends the tubes to the target of one sample.

    Ignored pixels are not part of any structure: neither their skeletons nor their tubes.

    Args:
        segmentation: (C, *spatial) on the CPU: labels, or regions of 0 and 1.

    Returns:
        (C + 1, *spatial) or (C + R, *spatial), of the same dtype.
    """
    if task.has_regions:
        regions = segmentation[: task.num_outputs].bool()
        if task.ignore_label is not None:
            regions = regions & ~segmentation[task.num_outputs].bool()
        tubes = torch.stack([_tube(region) & region for region in regions])
    else:
        foreground = segmentation > 0
        if task.ignore_label is not None:
            foreground &= segmentation != task.ignore_label
        # One skeleton of all classes: where two touch, each gets its part of the common centreline.
        tubes = segmentation * (_tube(foreground[0]) & foreground[0])
    return torch.cat((segmentation, tubes.to(segmentation.dtype)))


def _tube(structure: torch.Tensor) -> torch.Tensor:
    """Dilated skeleton of a bool (*spatial) of 2 or 3 axes."""
    from scipy.ndimage import binary_dilation
    from skimage.morphology import skeletonize

    pixels = structure.numpy()
    if not pixels.any():
        return structure
    skeleton = np.asarray(skeletonize(pixels), dtype=bool)
    return torch.from_numpy(binary_dilation(skeleton, iterations=_DILATIONS))

"""Steps that change the places of voxels within a patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from torch import Tensor

from nnunetv2.training.data_augmentation.on_device.steps import Batch, Parameters, Sample, Step


class MirrorStep(Step):
    """Mirrors samples along axes, all that share an axis together."""

    def __init__(self, transform: MirrorTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample) -> list[int]:
        """Draws the spatial axes along which the sample is mirrored."""
        axes = self.transform.get_parameters()["axes"]
        if sample.keeps_labels:
            sample.labels = self.transform._apply_to_segmentation(sample.labels, axes=axes)
        return axes

    def collate(self, drawn: Sequence[list[int]], num_channels: int) -> Parameters:
        by_axis = {axis: [n for n, axes in enumerate(drawn) if axis in axes] for axis in sorted(set().union(*drawn))}
        return {axis: torch.tensor(samples) for axis, samples in by_axis.items()}

    def apply(self, batch: Batch, parameters: Parameters) -> None:
        for axis, samples in parameters.items():
            _mirror(batch.image, axis, samples)
            if batch.labels is not None:
                _mirror(batch.labels, axis, samples)


def _mirror(arrays: Tensor, axis: int, samples: Tensor) -> None:
    arrays[samples] = arrays[samples].flip(axis + 2)

"""Reads samples and draws what their augmentation would draw, for an augmentation that happens elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nnunetv2.training.data_augmentation.on_device.recipe import DrawnSample, recipe_of
from nnunetv2.training.dataloading.data_loader import collated_targets, nnUNetDataLoader


class DrawingDataLoader(nnUNetDataLoader):
    """Reads crops and draws what its transforms would, in the same order; `AugmentedOnDevice` applies it.

    A batch is a dict of `drawn`, the content for `Recipe.apply`; `keys`; and `target`, if the workers make it.

    Args:
        args: arguments of the base class.
        keeps_labels: the workers make the targets in any case.
        settings: arguments of the base class.

    Attributes:
        recipe: the transforms, taken apart.

    Raises:
        UsageError: see `recipe_of`.
    """

    def __init__(self, *args: Any, keeps_labels: bool = False, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.recipe = recipe_of(self.transforms, keeps_labels=keeps_labels)

    def transform_sample(self, image: torch.Tensor, segmentation: torch.Tensor, drawn: dict[str, Any]) -> DrawnSample:
        return self.recipe.draw(image, segmentation, drawn)

    def collate(self, samples: Sequence[DrawnSample]) -> dict[str, Any]:
        content = {"drawn": self.recipe.collate(samples)}
        if not self.recipe.keeps_labels:
            return content
        return content | {"target": collated_targets([each.sample.labels for each in samples])}

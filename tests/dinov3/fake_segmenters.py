"""Segmentation models whose prediction is known: a function of each pixel's three values, or of the whole window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class PixelModel(nn.Module):
    """Linear head: scores that are a fixed integer combination of a pixel's values, so that sums of them are exact."""

    def __init__(self, multiple: int = 1, num_classes: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 3 * num_classes + 1).view(num_classes, 3), requires_grad=False)
        self.size_multiple = multiple
        self.sizes: list[tuple[int, ...]] = []  # of all inputs so far

    def logits(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        if images.shape[-1] % self.size_multiple or images.shape[-2] % self.size_multiple:
            raise ValueError(f"{tuple(images.shape)} is no multiple of {self.size_multiple}")
        return torch.einsum("kc,bchw->bkhw", self.weight, images)

    def predict(self, images: Tensor, rescale_to: tuple[int, int]) -> Tensor:
        assert tuple(rescale_to) == tuple(images.shape[-2:])
        return self.logits(images)


class PixelMaskModel(PixelModel):
    """Mask2Former head: one query per class, sure of it, whose mask logits are the pixel's scores."""

    def predict(self, images: Tensor, rescale_to: tuple[int, int]) -> dict[str, Tensor]:
        masks = super().predict(images, rescale_to)
        classes = functional.one_hot(torch.arange(len(self.weight)), len(self.weight) + 1) * 200.0 - 100.0
        return {"pred_logits": classes.expand(len(images), -1, -1), "pred_masks": masks}


class WindowModel(nn.Module):
    """One class whose score is a function of the window's pixels, the same for all of them."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score
        self.size_multiple = 1

    def predict(self, images: Tensor, rescale_to: tuple[int, int]) -> Tensor:
        return self.score(images).view(-1, 1, 1, 1).expand(-1, 1, *rescale_to)

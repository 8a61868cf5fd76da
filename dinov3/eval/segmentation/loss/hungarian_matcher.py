"""One-to-one matching of queries and target masks, for all predictions of a step at once.

Shapes: L predictions (the last and the auxiliary ones), B images, Q queries, K classes, P points, T targets of one
image, N targets of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dinov3.eval.segmentation.loss.device_assignment import assign_rows
from dinov3.eval.segmentation.loss.mask_loss_inputs import Targets
from dinov3.eval.segmentation.loss.point_sampling import (
    SamplingArea,
    one_set_per_image,
    sample_labels,
    sample_points,
)
from dinov3.eval.segmentation.settings.training import M2FTrainConfig
from dinov3.utils.host_copies import to_device


@dataclass(frozen=True)
class Matching:
    """Assignment of queries to targets. Targets of all images are concatenated."""

    images: Tensor
    """(N,) image of each target."""
    queries: Tensor
    """(L, N) query of each target; Q for unmatched targets of images with more targets than queries."""
    num_nonfinite: int | Tensor
    """Number of costs that were NaN or infinite; a tensor () if the matching was found on the device."""


@dataclass(frozen=True)
class HungarianMatcher:
    """Finds the assignment with the minimum sum of classification, cross entropy and Dice cost.

    All predictions of an image are compared with its targets at the same random points. Costs are copied to the host
    once, or stay on the device. Pairs with NaN or infinite cost are matched only if no alternative is left.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer", section 3.3, arXiv:2112.01527; Kuhn 1955, "The
    Hungarian Method for the Assignment Problem".
    """

    class_coefficient: float = M2FTrainConfig.class_coefficient
    """Weight of the class cost."""
    mask_coefficient: float = M2FTrainConfig.mask_coefficient
    """Weight of the binary cross entropy."""
    dice_coefficient: float = M2FTrainConfig.dice_coefficient
    """Weight of the Dice cost."""
    num_points: int = M2FTrainConfig.num_points
    """Points per image at which masks are compared."""
    on_device: bool = M2FTrainConfig.match_on_device
    """Find the assignment on the device, unless an image has more targets than queries."""

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        masks: Sequence[Tensor],
        targets: Targets,
        area: SamplingArea,
        valid: Tensor | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Matching:
        """Matches queries and targets.

        Args:
            logits: (L, B, Q, K + 1) class logits, float32 or float64.
            masks: L times (B, Q, h, w) mask logits.
            targets: B times `labels` (T,) and `masks` (T, H, W).
            area: Area from which points are drawn.
            valid: (B, H, W) bool; None if all pixels count.
            generators: One per image for its points; None: torch's default generator.

        Returns:
            The matching, on the device of the predictions.
        """
        counts = [len(target["labels"]) for target in targets]
        num_predictions, batch_size, num_queries, _ = logits.shape
        images = torch.from_numpy(np.repeat(np.arange(batch_size), counts))
        if sum(counts) == 0:
            queries, num_nonfinite = torch.empty((num_predictions, 0), dtype=torch.long), 0
        else:
            points = one_set_per_image(area, batch_size, self.num_points, generators)
            costs = self._costs(logits, masks, targets, points, valid)
            if self.on_device and max(counts) <= num_queries:
                return Matching(to_device(images, logits.device), *assign_on_device(costs, counts))
            queries, num_nonfinite = assign(costs.cpu().numpy(), counts)
        indices = to_device(torch.vstack((images[None], queries)), logits.device)
        return Matching(indices[0], indices[1:], num_nonfinite)

    def _costs(
        self, logits: Tensor, masks: Sequence[Tensor], targets: Targets, points: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Takes (B, P, 2) points, returns (L, B, Q, largest T); columns beyond an image's T are padding."""
        labels = []
        for image, target in enumerate(targets):
            image_valid = None if valid is None else valid[image]
            labels.append(sample_labels(target["masks"], points[image, None], image_valid))
        labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True).to(logits.dtype)  # (B, T, P)
        classes = torch.nn.utils.rnn.pad_sequence([target["labels"] for target in targets], batch_first=True)  # (B, T)

        sampled = torch.stack([sample_points(mask.to(logits.dtype), points) for mask in masks])  # (L, B, Q, P)
        of_pairs = classes[None, :, None].expand(*sampled.shape[:3], -1)  # (L, B, Q, T)
        class_cost = -logits.softmax(dim=-1).gather(3, of_pairs)
        return (
            self.class_coefficient * class_cost
            + self.mask_coefficient * cross_entropy_cost(sampled, labels)
            + self.dice_coefficient * dice_cost(sampled, labels)
        )


def cross_entropy_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of every mask with every target, averaged over the points.

    Takes (L, B, Q, P) logits and (B, T, P) labels in [0, 1]; returns (L, B, Q, T).
    """
    # -y log s(x) - (1 - y) log(1 - s(x)) = softplus(x) - x y, so that one matrix product covers both labels
    mixed = logits @ labels.mT
    return (F.softplus(logits).sum(dim=-1, keepdim=True) - mixed) / logits.shape[-1]


def dice_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the Dice of every mask with every target, with 1 added to numerator and denominator.

    Takes (L, B, Q, P) logits and (B, T, P) labels in [0, 1]; returns (L, B, Q, T) in [0, 1].
    """
    probabilities = logits.sigmoid()
    overlap = probabilities @ labels.mT
    total = probabilities.sum(dim=-1, keepdim=True) + labels.sum(dim=-1)[:, None]
    return 1 - (2 * overlap + 1) / (total + 1)


def assign(costs: np.ndarray, counts: Sequence[int]) -> tuple[Tensor, int]:
    """Solves the assignment of each prediction and image on the host.

    Args:
        costs: (L, B, Q, largest T).
        counts: T of each image.

    Returns:
        (L, N) query of each target, Q for unmatched targets; and the number of non-finite costs.
    """
    num_predictions, _, num_queries, _ = costs.shape
    queries = np.full((num_predictions, sum(counts)), num_queries, dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    num_nonfinite = 0
    for prediction in range(num_predictions):
        for image, (start, count) in enumerate(zip(starts, counts, strict=True)):
            cost = costs[prediction, image, :, :count].astype(np.float64)
            finite = np.isfinite(cost)
            if not finite.all():
                num_nonfinite += int((~finite).sum())
                cost = _avoid(cost, finite)
            rows, columns = linear_sum_assignment(cost)
            queries[prediction, start + columns] = rows
    return torch.from_numpy(queries), num_nonfinite


def assign_on_device(costs: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Solves the assignment of each prediction and image on the device of the costs, without waiting for it.

    Args:
        costs: (L, B, Q, largest T), T at most Q.
        counts: T of each image.

    Returns:
        (L, N) query of each target; and the number () of non-finite costs.
    """
    # A row for each target. Rows without target cost nothing with any query, so that they change no other assignment.
    costs = costs.transpose(2, 3).double()
    exists = torch.tensor([[row < count for row in range(max(counts))] for count in counts])
    exists = to_device(exists, costs.device)[..., None]  # (B, largest T, 1)
    costs = torch.where(exists, costs, 0)
    finite = costs.isfinite()
    largest = torch.where(finite, costs.abs(), 0).amax(dim=(2, 3), keepdim=True)
    costs = torch.where(finite, costs, _penalty(largest, max(counts)))
    queries = assign_rows(costs.flatten(0, 1)).unflatten(0, costs.shape[:2])
    of_image = [chosen[:, :count] for chosen, count in zip(queries.unbind(1), counts, strict=True)]
    return torch.cat(of_image, dim=1), (~finite).sum()


def _avoid(cost: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Replaces non-finite costs by a penalty that no combination of the other costs can outweigh."""
    largest = np.abs(cost[finite]).max() if finite.any() else 0.0
    return np.where(finite, cost, _penalty(largest, min(cost.shape)))


def _penalty(largest: Any, num_pairs: int) -> Any:
    """A cost that no combination of `num_pairs` costs of at most `largest` can outweigh.

    It stays close to the other costs: the largest float would round away the differences between them.
    """
    # Exchanging a pair changes the cost of an assignment by at most 2 * largest.
    return (2 * num_pairs + 1) * largest + 1

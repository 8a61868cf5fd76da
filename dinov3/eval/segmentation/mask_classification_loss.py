"""Loss of models that predict a set of classified masks.

Shapes: L predictions (the last and the auxiliary ones), B images, Q queries, K classes, P points of c coordinates,
T targets of one image, N targets of all images. An image may be a volume; masks, targets and `valid` then have an axis
of D slices before height and width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.loss.hungarian_matcher import HungarianMatcher, Matching
from dinov3.eval.segmentation.loss.mask_loss_inputs import Targets, check_generators, check_targets
from dinov3.eval.segmentation.loss.point_sampling import (
    SamplingArea,
    ValidPixels,
    WholeImage,
    sample_labels,
    sample_points,
    uncertain_points,
)
from dinov3.eval.segmentation.settings.training import M2FTrainConfig
from dinov3.utils.processes.process_group import is_distributed


class MaskClassificationLoss(nn.Module):
    """Class cross entropy of all queries, and binary cross entropy and Dice of the masks matched to a target.

    Each prediction of the model, the last and every auxiliary one, is matched separately. Masks are compared at points
    where the prediction is uncertain, mixed with uniform points. Everything is computed in at least float32, also under
    autocast.

    Ignored pixels (not `valid`) are excluded: points are drawn from the valid area only, also in the matching, and
    ignored pixels do not contribute to interpolated labels. An image without valid pixels contributes to no term,
    because it is unknown which of its queries should be "no object". A batch without targets has mask terms of exactly
    0, with a gradient of 0 for every parameter.

    All terms are normalised over all processes: the mean over the processes equals the loss of a single process with
    all images, even if a process has no targets.

    Args:
        num_classes: K, without "no object".
        num_points: P, points per mask; also points per image in the matching.
        oversample_ratio: Candidates per point, at least 1.
        importance_sample_ratio: Fraction in [0, 1] of points that are the least certain candidates.
        mask_coefficient: Weight of the binary cross entropy, also in the matching.
        dice_coefficient: Weight of the Dice loss, also in the matching.
        class_coefficient: Weight of the class term, also in the matching.
        no_object_coefficient: Weight of unmatched queries within the class term.
        match_on_device: Match on the device of the predictions instead of the host, with the same result.

    Attributes:
        num_nonfinite_costs: Number of NaN or infinite matching costs in the last call; above 0, training diverges. A
            tensor () with `match_on_device`.

    Raises:
        ValueError: If a ratio or number is out of range.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", sections 3.3 and
    4.1, arXiv:2112.01527.
    """

    def __init__(
        self,
        num_classes: int,
        num_points: int = M2FTrainConfig.num_points,
        oversample_ratio: float = M2FTrainConfig.oversample_ratio,
        importance_sample_ratio: float = M2FTrainConfig.importance_sample_ratio,
        mask_coefficient: float = M2FTrainConfig.mask_coefficient,
        dice_coefficient: float = M2FTrainConfig.dice_coefficient,
        class_coefficient: float = M2FTrainConfig.class_coefficient,
        no_object_coefficient: float = M2FTrainConfig.no_object_coefficient,
        match_on_device: bool = M2FTrainConfig.match_on_device,
    ) -> None:
        super().__init__()
        if num_classes < 1 or num_points < 1:
            raise ValueError(f"{num_classes} classes and {num_points} points were given; give at least 1 of each.")
        if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
            raise ValueError(
                f"An oversample_ratio of {oversample_ratio} and an importance_sample_ratio of "
                f"{importance_sample_ratio} were given; give at least 1, and 0 to 1."
            )
        self.num_classes = num_classes
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.no_object_coefficient = no_object_coefficient
        self.coefficients = {
            "loss_class": class_coefficient,
            "loss_mask": mask_coefficient,
            "loss_dice": dice_coefficient,
        }
        self.matcher = HungarianMatcher(
            class_coefficient, mask_coefficient, dice_coefficient, num_points, match_on_device
        )
        self.num_nonfinite_costs = 0

    def forward(
        self,
        outputs: Mapping[str, Tensor | Sequence[Mapping[str, Tensor]]],
        targets: Targets,
        valid: Tensor | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> dict[str, Tensor]:
        """Computes all terms.

        Args:
            outputs: `pred_logits` (B, Q, K + 1) with "no object" as last class; `pred_masks` (B, Q, h, w) logits; and
                optionally `aux_outputs`, a sequence of such dictionaries.
            targets: Per image `labels` (T,) int64 in [0, K) and `masks` (T, H, W) bool or number in [0, 1], T from 0.
                With T > Q, the worst-matching targets remain unmatched. A mask without valid pixels is treated as
                empty.
            valid: (B, H, W) bool, False for ignored pixels; None: no pixel is ignored.
            generators: One per image, on the device of the predictions, for all random points of this image. If the
                generators are re-created for each call, the points depend neither on the other images of the batch nor
                on the number of processes. None: torch's default generator for all images.

        Returns:
            Unweighted terms `loss_class`, `loss_mask` and `loss_dice`, and the same with suffix `_0`, `_1`, ... for the
            auxiliary predictions; `total` computes their weighted sum.

        Raises:
            ValueError: If the numbers of images, labels, masks and generators or the sizes of masks and `valid` do not
                match.
        """
        predictions = [outputs, *outputs.get("aux_outputs", ())]
        masks = [prediction["pred_masks"] for prediction in predictions]
        with torch.autocast(masks[0].device.type, enabled=False):
            logits = torch.stack([prediction["pred_logits"] for prediction in predictions])  # (L, B, Q, K+1)
            check_targets(logits, targets, valid, self.num_classes)
            check_generators(generators, len(targets), logits.device)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            depth = masks[0].shape[2:-2].numel()
            area = WholeImage(len(targets), logits.device, depth) if valid is None else ValidPixels(valid)
            matching = self.matcher(logits, masks, targets, area, valid, generators)
            self.num_nonfinite_costs = matching.num_nonfinite
            entropy, weights = self._class_entropies(logits, targets, matching, area.has_pixels)
            num_masks = area.has_pixels[matching.images].sum()
            mask_divisor, class_divisors = loss_divisors(num_masks, weights.sum(dim=(1, 2)))
            loss_class = (weights * entropy).sum(dim=(1, 2)) / class_divisors
            mask_sums = []
            for part in _parts_of_one_size(masks):
                of_part = replace(matching, queries=matching.queries[part])
                mask_sums.append(
                    self._mask_losses(masks[part], logits.dtype, targets, of_part, area, valid, generators)
                )
            loss_mask, loss_dice = (torch.cat(term) / mask_divisor for term in zip(*mask_sums, strict=True))
        losses = {}
        for term, values in (("loss_class", loss_class), ("loss_mask", loss_mask), ("loss_dice", loss_dice)):
            last, *auxiliary = values.unbind()
            losses[term] = last
            losses.update({f"{term}_{index}": value for index, value in enumerate(auxiliary)})
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the terms that `forward` returned."""
        sums = [
            coefficient
            * torch.stack(
                [value for name, value in losses.items() if name == term or name.startswith(f"{term}_")]
            ).sum()
            for term, coefficient in self.coefficients.items()
        ]
        return torch.stack(sums).sum()

    def _class_entropies(
        self, logits: Tensor, targets: Targets, matching: Matching, has_pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(L, B, Q) cross entropies of all queries and their weights."""
        num_predictions, batch_size, num_queries, _ = logits.shape
        # One extra query receives the labels of unmatched targets and is cut off again.
        classes = torch.full(
            (num_predictions, batch_size, num_queries + 1), self.num_classes, dtype=torch.long, device=logits.device
        )
        labels = torch.cat([target["labels"] for target in targets])
        prediction = torch.arange(num_predictions, device=logits.device)[:, None]
        classes[prediction, matching.images[None], matching.queries] = labels.expand(num_predictions, -1)
        classes = classes[..., :-1]
        entropy = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), reduction="none").view_as(classes)
        weights = torch.ones_like(entropy).masked_fill(classes == self.num_classes, self.no_object_coefficient)
        return entropy, weights * has_pixels[:, None]

    def _mask_losses(
        self,
        masks: Sequence[Tensor],
        dtype: torch.dtype,
        targets: Targets,
        matching: Matching,
        area: SamplingArea,
        valid: Tensor | None,
        generators: Sequence[torch.Generator] | None,
    ) -> tuple[Tensor, Tensor]:
        """(L,) sums of the binary cross entropies and of the Dice losses over matched masks of one size."""
        num_predictions, num_targets = matching.queries.shape
        if num_targets == 0:
            # Zero, but part of the graph: every parameter must get a gradient, of 0.
            nothing = torch.stack([mask[..., :0].sum() for mask in masks]).to(dtype)
            return nothing, nothing

        matched = _matched_masks(masks, matching).to(dtype)  # (N, L, h, w)
        points = self._points(matched.detach(), targets, matching.images, area, generators)  # (N, L * P, c)
        of_each = points.view(num_targets * num_predictions, -1, points.shape[-1])
        sampled = sample_points(matched.flatten(0, 1)[:, None], of_each)[:, 0]
        labels = _labels_of_all(targets, points, valid).view_as(sampled)

        counted = area.has_pixels[matching.images]
        weights = counted[:, None] & matching.queries.lt(masks[0].shape[1]).T  # (N, L)
        entropy = F.binary_cross_entropy_with_logits(sampled, labels.to(dtype), reduction="none").mean(dim=-1)
        dice = dice_loss(sampled, labels)
        return tuple((weights * loss.view_as(weights)).sum(dim=0) for loss in (entropy, dice))

    def _points(
        self,
        matched: Tensor,
        targets: Targets,
        images: Tensor,
        area: SamplingArea,
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """Takes (N, L, h, w) masks and the (N,) images they belong to; returns (N, L * P, c) points."""
        num_targets, num_predictions = matched.shape[:2]
        batches = [(matched, images, None)]
        if generators is not None:
            counts = [len(target["labels"]) for target in targets]
            batches = zip(matched.split(counts), images.split(counts), generators, strict=True)
        points = [
            uncertain_points(
                masks.flatten(0, 1),
                image.repeat_interleave(num_predictions),
                area,
                num_points=self.num_points,
                oversample_ratio=self.oversample_ratio,
                importance_sample_ratio=self.importance_sample_ratio,
                generator=generator,
            )
            for masks, image, generator in batches
            if len(masks)
        ]
        together = torch.cat(points)
        return together.view(num_targets, -1, together.shape[-1])


def _parts_of_one_size(masks: Sequence[Tensor]) -> Iterator[slice]:
    """Runs of neighbouring masks of one size; the last prediction may have larger masks than the auxiliary ones."""
    start = 0
    for _, run in itertools.groupby(masks, key=lambda mask: mask.shape[-2:]):
        end = start + len(list(run))
        yield slice(start, end)
        start = end


def _matched_masks(masks: Sequence[Tensor], matching: Matching) -> Tensor:
    """(N, L, h, w) mask logits of the query of each target; of an arbitrary query for unmatched targets."""
    of_each = matching.queries.clamp(max=masks[0].shape[1] - 1)
    matched = [mask[matching.images, queries] for mask, queries in zip(masks, of_each, strict=True)]
    return torch.stack(matched, dim=1)


def _labels_of_all(targets: Targets, points: Tensor, valid: Tensor | None) -> Tensor:
    """Takes (N, P, c) points and returns the labels (N, P) of each target at its points."""
    labels = []
    per_image = points.split([len(target["labels"]) for target in targets])
    for image, (target, image_points) in enumerate(zip(targets, per_image, strict=True)):
        if len(image_points):
            labels.append(sample_labels(target["masks"], image_points, None if valid is None else valid[image]))
    return torch.cat(labels)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the Dice of each mask with its target, with 1 added to numerator and denominator.

    Takes (M, P) logits and (M, P) labels in [0, 1]; returns (M,) in [0, 1].
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * labels).sum(dim=-1)
    return 1 - (2 * overlap + 1) / (probabilities.sum(dim=-1) + labels.sum(dim=-1) + 1)


def loss_divisors(num_masks: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the divisors of mask terms and class term over all processes, in one collective.

    With these divisors, the mean over the processes, and hence the averaged gradients, equal those of a single process
    with all images. The collective runs independently of a process's targets.

    Args:
        num_masks: () number of masks of this process.
        class_weights: (L,) sums of the query weights of this process.

    Returns:
        () for the mask terms, counting at least one mask over all processes; (L,) for the class term, above 0.
    """
    sums = torch.cat((num_masks.view(1).to(class_weights.dtype), class_weights))
    world_size = 1
    if is_distributed():
        dist.all_reduce(sums)
        world_size = dist.get_world_size()
    smallest = torch.finfo(sums.dtype).tiny  # fully ignored images have zero weight
    return sums[0].clamp(min=1) / world_size, (sums[1:] / world_size).clamp(min=smallest)

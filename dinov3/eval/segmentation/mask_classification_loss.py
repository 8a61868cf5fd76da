"""Loss of models that predict a set of classified masks.

Shapes: L predictions (the last and the auxiliary ones), B images, Q queries, K classes, P points, T targets of one
image, N targets of all images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.hungarian_matcher import HungarianMatcher, Matching, Targets
from dinov3.eval.segmentation.point_sampling import (
    SamplingArea,
    ValidPixels,
    WholeImage,
    sample_labels,
    sample_points,
    uncertain_points,
)


class MaskClassificationLoss(nn.Module):
    """Class cross entropy of all queries, and binary cross entropy and Dice of the masks matched to a target.

    The matching is done anew for each prediction of the model, that is for the last and for each auxiliary one. Masks
    are compared at points: where the prediction is uncertain, mixed with uniform ones. Everything is computed in at
    least float32, whatever the type of the predictions and also under autocast.

    Pixels that are not `valid` take no part: points are drawn from the valid area alone, for the matching as well, and
    an ignored pixel lends nothing to the label of a point beside it. An image without any valid pixel adds nothing to
    any
    term: there is no telling which of its queries should be "no object". A batch without any target has mask terms of
    exactly 0, with a gradient of 0 for every parameter.

    Args:
        num_classes: K, without "no object".
        num_points: P, points per mask; also points per image in the matching.
        oversample_ratio: Candidates per point, at least 1.
        importance_sample_ratio: Part in [0, 1] of the points that are the least certain candidates.
        mask_coefficient: Weight of the binary cross entropy, in the matching as well.
        dice_coefficient: Weight of the Dice loss, in the matching as well.
        class_coefficient: Weight of the class term, in the matching as well.
        no_object_coefficient: Weight of unmatched queries within the class term.

    Attributes:
        num_nonfinite_costs: How many matching costs of the last call were NaN or infinite; above 0, training diverges.

    Raises:
        ValueError: If a ratio or number lies outside its range.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", sections 3.3 and
    4.1, arXiv:2112.01527.
    """

    def __init__(
        self,
        num_classes: int,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        mask_coefficient: float = 5.0,
        dice_coefficient: float = 5.0,
        class_coefficient: float = 2.0,
        no_object_coefficient: float = 0.1,
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
        self.matcher = HungarianMatcher(class_coefficient, mask_coefficient, dice_coefficient, num_points)
        self.num_nonfinite_costs = 0

    def forward(
        self,
        outputs: Mapping[str, Tensor | Sequence[Mapping[str, Tensor]]],
        targets: Targets,
        valid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Computes all terms.

        Args:
            outputs: `pred_logits` (B, Q, K + 1), the last class being "no object"; `pred_masks` (B, Q, h, w) logits;
                and `aux_outputs`, a sequence of such dictionaries (may be absent).
            targets: Per image `labels` (T,) int64 in [0, K) and `masks` (T, H, W) bool or number in [0, 1], T from 0.
                With T > Q the targets that match worst go without a query. A mask without any valid pixel is learned as
                an empty one.
            valid: (B, H, W) bool, False where pixels are to be ignored; None if all count.

        Returns:
            `loss_class`, `loss_mask` and `loss_dice`, without their weights, and the same with `_0`, `_1`, ... for the
            auxiliary predictions. `total` adds them up.

        Raises:
            ValueError: If the numbers of images, labels and masks or the sizes of masks and `valid` do not fit.
        """
        predictions = [outputs, *outputs.get("aux_outputs", ())]
        masks = [prediction["pred_masks"] for prediction in predictions]
        with torch.autocast(masks[0].device.type, enabled=False):
            logits = torch.stack([prediction["pred_logits"] for prediction in predictions])  # (L, B, Q, K+1)
            check_targets(logits, targets, valid, self.num_classes)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            area = WholeImage(len(targets), logits.device) if valid is None else ValidPixels(valid)
            matching = self.matcher(logits, masks, targets, area, valid)
            self.num_nonfinite_costs = matching.num_nonfinite
            loss_class = self._class_loss(logits, targets, matching, area.has_pixels)
            loss_mask, loss_dice = self._mask_losses(masks, logits.dtype, targets, matching, area, valid)
        losses = {}
        for term, values in (("loss_class", loss_class), ("loss_mask", loss_mask), ("loss_dice", loss_dice)):
            last, *auxiliary = values.unbind()
            losses[term] = last
            losses.update({f"{term}_{index}": value for index, value in enumerate(auxiliary)})
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the terms that `forward` returned."""
        return torch.stack(
            [
                coefficient * value
                for term, coefficient in self.coefficients.items()
                for name, value in losses.items()
                if name == term or name.startswith(f"{term}_")
            ]
        ).sum()

    def _class_loss(self, logits: Tensor, targets: Targets, matching: Matching, has_pixels: Tensor) -> Tensor:
        """(L,) weighted means of the cross entropy over all queries."""
        num_predictions, batch_size, num_queries, _ = logits.shape
        # One query more, which takes the labels of targets without a query and is cut off again.
        classes = torch.full(
            (num_predictions, batch_size, num_queries + 1), self.num_classes, dtype=torch.long, device=logits.device
        )
        labels = torch.cat([target["labels"] for target in targets])
        prediction = torch.arange(num_predictions, device=logits.device)[:, None]
        classes[prediction, matching.images[None], matching.queries] = labels.expand(num_predictions, -1)
        classes = classes[..., :-1]

        entropy = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), reduction="none").view_as(classes)
        no_object = classes == self.num_classes
        weights = torch.where(no_object, self.no_object_coefficient, 1.0) * has_pixels[:, None]
        smallest = torch.finfo(entropy.dtype).tiny  # a batch of ignored images has no weight at all
        return (weights * entropy).sum(dim=(1, 2)) / weights.sum(dim=(1, 2)).clamp(min=smallest)

    def _mask_losses(
        self,
        masks: Sequence[Tensor],
        dtype: torch.dtype,
        targets: Targets,
        matching: Matching,
        area: SamplingArea,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(L,) binary cross entropies and Dice losses of the matched masks."""
        counted = area.has_pixels[matching.images]  # (N,)
        num_masks = average_num_masks(counted.sum())  # on every rank, also on one without targets
        num_predictions, num_targets = matching.queries.shape
        if num_targets == 0:
            nothing = torch.stack([mask[..., :0].sum() for mask in masks]).to(dtype)
            return nothing, nothing

        matched = _matched_masks(masks, matching).to(dtype).flatten(0, 1)  # (N*L, h, w)
        points = uncertain_points(
            matched.detach(),
            matching.images.repeat_interleave(num_predictions),
            area,
            num_points=self.num_points,
            oversample_ratio=self.oversample_ratio,
            importance_sample_ratio=self.importance_sample_ratio,
        )  # (N*L, P, 2)
        sampled = sample_points(matched[:, None], points)[:, 0]
        labels = _labels_of_all(targets, points.view(num_targets, -1, 2), valid).view_as(sampled)

        weights = counted[:, None] & matching.queries.lt(masks[0].shape[1]).T  # (N, L)
        entropy = F.binary_cross_entropy_with_logits(sampled, labels.to(dtype), reduction="none").mean(dim=-1)
        dice = dice_loss(sampled, labels)
        return tuple((weights * loss.view_as(weights)).sum(dim=0) / num_masks for loss in (entropy, dice))


def _matched_masks(masks: Sequence[Tensor], matching: Matching) -> Tensor:
    """(N, L, h, w) mask logits of the query of each target; of any query where a target has none."""
    last_query = masks[0].shape[1] - 1
    matched = [
        mask[matching.images, queries.clamp(max=last_query)]
        for mask, queries in zip(masks, matching.queries, strict=True)
    ]
    return torch.stack(matched, dim=1)


def _labels_of_all(targets: Targets, points: Tensor, valid: Tensor | None) -> Tensor:
    """Takes (N, P, 2) points and returns the (N, P) labels of each target at its own."""
    labels = []
    per_image = points.split([len(target["labels"]) for target in targets])
    for image, (target, image_points) in enumerate(zip(targets, per_image, strict=True)):
        if len(image_points):
            labels.append(sample_labels(target["masks"], image_points, None if valid is None else valid[image]))
    return torch.cat(labels)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the Dice of each mask with its target, with 1 added above and below.

    Takes (M, P) logits and (M, P) labels in [0, 1]; returns (M,) in [0, 1].
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * labels).sum(dim=-1)
    return 1 - (2 * overlap + 1) / (probabilities.sum(dim=-1) + labels.sum(dim=-1) + 1)


def average_num_masks(num_masks: Tensor) -> Tensor:
    """Masks per process, averaged over all processes and at least 1.

    With this divisor the gradients that distributed training averages are those of one process with all the images.
    """
    num_masks = num_masks.to(torch.float32)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(num_masks)
        num_masks = num_masks / dist.get_world_size()
    return num_masks.clamp(min=1)


def check_targets(logits: Tensor, targets: Targets, valid: Tensor | None, num_classes: int) -> None:
    """Refuses targets that do not fit the predictions, from shapes alone.

    Raises:
        ValueError: If numbers or sizes do not fit.
    """
    _, batch_size, _, num_outputs = logits.shape
    if num_outputs != num_classes + 1:
        raise ValueError(f"Predictions have {num_outputs} classes; a loss of {num_classes} classes takes one more.")
    if len(targets) != batch_size or (valid is not None and len(valid) != batch_size):
        raise ValueError(
            f"Targets of {len(targets)} images{'' if valid is None else f' and valid of {len(valid)}'} were given for "
            f"predictions of {batch_size}; give one per image."
        )
    for image, target in enumerate(targets):
        labels, masks = target["labels"], target["masks"]
        if labels.ndim != 1 or masks.ndim != 3 or len(labels) != len(masks):
            raise ValueError(
                f"Image {image} has labels of shape {tuple(labels.shape)} and masks of shape {tuple(masks.shape)}; "
                f"give (T,) and (T, H, W)."
            )
        if valid is not None and masks.shape[1:] != valid.shape[1:]:
            raise ValueError(
                f"The masks of image {image} are {tuple(masks.shape[1:])} and valid is {tuple(valid.shape[1:])}; "
                f"give both the same size."
            )

"""Metrics of predicted against reference label maps, per class and averaged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dinov3.eval.segmentation.data.labels import IGNORE_INDEX
from dinov3.eval.segmentation.settings.images import METRICS
from dinov3.utils.errors import DataError
from dinov3.utils.processes.process_group import gather

METRIC_NAMES = METRICS


class SegmentationMetrics:
    """Accumulates pixel counts over images and computes metrics from them.

    Args:
        num_classes: K.
        ignore_index: Reference label of ignored pixels.
        compute_metric_per_image: Average per-image metrics instead of computing them from the pixels of all images:
            every image then has equal weight, independent of its size.

    Attributes:
        confusion: (K, K) int64, pixels by reference class (row) and predicted class (column), of all images.
        num_images: Number of images.
    """

    def __init__(
        self, num_classes: int, ignore_index: int = IGNORE_INDEX, compute_metric_per_image: bool = False
    ) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.compute_metric_per_image = compute_metric_per_image
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.num_images = 0
        self._areas_of_images: list[Tensor] = []

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Adds one image.

        Args:
            prediction: (H, W) integer classes from 0 to K - 1.
            label: (H, W) integers, on the same device: classes or `ignore_index`.

        Raises:
            DataError: The label map has another size or invalid values.
        """
        confusion = confusion_matrix(prediction, label, self.num_classes, self.ignore_index).cpu()
        self.confusion += confusion
        self.num_images += 1
        if self.compute_metric_per_image:
            self._areas_of_images.append(_areas(confusion))

    def reduce(self) -> SegmentationMetrics:
        """Sums the counts over all processes; every process must call it."""
        together = SegmentationMetrics(self.num_classes, self.ignore_index, self.compute_metric_per_image)
        for confusion, num_images, areas_of_images in gather((self.confusion, self.num_images, self._areas_of_images)):
            together.confusion += confusion
            together.num_images += num_images
            together._areas_of_images += areas_of_images
        return together

    def compute(self) -> dict[str, Any]:
        """Computes the metrics, in percent and not rounded, of the images of this process.

        - `mIoU`, `mDice` (`dice`), `mAcc` (`acc`, `recall`), `precision`, `fscore`: means over the classes for which
        the metric is defined. For a class in neither map, all are undefined. Accuracy, which is recall, requires pixels
        in the reference, precision in the prediction, and the F-score a true positive: a class that is missed entirely
        has Dice 0, but no F-score (Meta's definitions).
        - `aAcc`: share of correct pixels.
        - `num_images`.
        - `classes`: for each class `class` (its index), `IoU`, `Dice`, `Acc`, `Precision`, `Recall`, `Fscore`, and the
          number of its pixels, `reference_pixels` and `predicted_pixels`.

        Undefined metrics are nan. With `compute_metric_per_image`, all percentages are means over images; those of a
        class are means over the images for which they are defined.
        """
        per_image = self.compute_metric_per_image and self._areas_of_images
        areas = torch.stack(self._areas_of_images if per_image else [_areas(self.confusion)])  # (images or 1, 3, K)
        of_classes = _metrics_of_classes(areas)
        means = {name: values.nanmean(dim=1).nanmean().item() for name, values in of_classes.items()}
        hits, _, reference = areas.unbind(dim=1)
        right = 100 * hits.sum(dim=1).double() / reference.sum(dim=1)
        return {
            "mIoU": means["IoU"],
            "mDice": means["Dice"],
            "mAcc": means["Acc"],
            "aAcc": right.nanmean().item(),
            "dice": means["Dice"],
            "acc": means["Acc"],
            "fscore": means["Fscore"],
            "precision": means["Precision"],
            "recall": means["Recall"],
            "num_images": self.num_images,
            "classes": self._rows_of_classes(of_classes),
        }

    def _rows_of_classes(self, of_classes: dict[str, Tensor]) -> list[dict[str, float | int]]:
        _, predicted, reference = _areas(self.confusion).tolist()
        values = {name: per_image.nanmean(dim=0).tolist() for name, per_image in of_classes.items()}
        return [
            {
                "class": index,
                **{name: value[index] for name, value in values.items()},
                "reference_pixels": reference[index],
                "predicted_pixels": predicted[index],
            }
            for index in range(self.num_classes)
        ]


def confusion_matrix(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Counts the pairs of reference and predicted class over all pixels that are not ignored.

    Args:
        prediction: Integer classes from 0 to K - 1, of any shape.
        label: Integers of the same shape: classes or `ignore_index`.

    Returns:
        (K, K) int64 on the device of `prediction`: row reference, column prediction.

    Raises:
        DataError: The shapes differ, or the label map has invalid values.
    """
    if prediction.shape != label.shape:
        raise DataError(f"The label map is {_size(label)} pixels and the prediction {_size(prediction)}.")
    counted = label != ignore_index
    reference, predicted = label[counted].long(), prediction[counted].long()
    strange = (reference < 0) | (reference >= num_classes)
    if strange.any():
        values = ", ".join(str(value) for value in reference[strange].unique().tolist()[:10])
        raise DataError(
            f"The label map holds {values}; with {num_classes} classes it may hold 0 to {num_classes - 1} and "
            f"{ignore_index} for pixels to ignore. Correct it, or set num_classes and reduce_zero_label to match it."
        )
    pairs = torch.bincount(reference * num_classes + predicted, minlength=num_classes**2)
    return pairs.view(num_classes, num_classes)


def _size(label_map: Tensor) -> str:
    return " x ".join(str(side) for side in label_map.shape)


def _areas(confusion: Tensor) -> Tensor:
    """(3, K): correct, predicted and reference pixels of each class."""
    return torch.stack([confusion.diagonal(), confusion.sum(dim=0), confusion.sum(dim=1)])


def _metrics_of_classes(areas: Tensor) -> dict[str, Tensor]:
    """Percentages (N, K) from areas (N, 3, K); nan where the denominator is 0."""
    hits, predicted, reference = areas.double().unbind(dim=1)
    precision, recall = hits / predicted, hits / reference
    fractions = {
        "IoU": hits / (predicted + reference - hits),
        "Dice": 2 * hits / (predicted + reference),
        "Acc": recall,
        "Precision": precision,
        "Recall": recall,
        "Fscore": 2 * precision * recall / (precision + recall),
    }
    return {name: 100 * values for name, values in fractions.items()}

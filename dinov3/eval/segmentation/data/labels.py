"""Label maps: validation of their values, and conversion to the mask sets of Mask2Former."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from dinov3.utils.errors import DataError, UsageError

IGNORE_INDEX = 255
MAX_LISTED_VALUES = 8  # of the wrong values that an error message shows


def reduce_zero_label(label: Tensor) -> Tensor:
    """Converts labels 1 to K, with 0 for "none of them", to classes 0 to K - 1; 0 and 255 become ignored."""
    ignored = (label == 0) | (label == IGNORE_INDEX)
    return torch.where(ignored, IGNORE_INDEX, label - 1)


def labels_in_range(label: Tensor, num_classes: int, path: str | PathLike, *, reduce_zero_label: bool = False) -> None:
    """Raises `DataError` if a stored label map contains anything but classes and ignored pixels.

    Args:
        label: (H, W) integers before `reduce_zero_label`.
        num_classes: K, at most 255 (254 with `reduce_zero_label`), because 255 is reserved.
        path: the file, for error messages.
        reduce_zero_label: classes are 1 to K and 0 is ignored, instead of 0 to K - 1.
    """
    first = 1 if reduce_zero_label else 0
    end = first + num_classes
    if num_classes < 1 or end > IGNORE_INDEX:
        raise UsageError(
            f"{num_classes} classes were given; label maps hold between 1 and {IGNORE_INDEX - first}, "
            f"because {IGNORE_INDEX} marks ignored pixels"
        )
    is_wrong = ((label < 0) | (label >= end)) & (label != IGNORE_INDEX)
    if not is_wrong.any():
        return
    values = label[is_wrong].unique().tolist()
    shown = ", ".join(map(str, values[:MAX_LISTED_VALUES])) + (", ..." if len(values) > MAX_LISTED_VALUES else "")
    ignored = f"0 and {IGNORE_INDEX}" if reduce_zero_label else f"{IGNORE_INDEX}"
    other_way = str(not reduce_zero_label).lower()
    raise DataError(
        f"{path} holds the label{'s' * (len(values) > 1)} {shown}; with {num_classes} classes the labels are {first} "
        f"to {end - 1}, and {ignored} for ignored pixels: correct the file, or set decoder_head.num_classes "
        f"(or eval.reduce_zero_label={other_way} if classes count from {1 - first})"
    )


@dataclass(frozen=True)
class SemanticToM2FTargets:
    """Creates one mask per class that occurs in an image."""

    num_classes: int
    """K."""
    ignore_index: int = IGNORE_INDEX
    """Label of ignored pixels, which belong to no mask."""

    def __call__(self, label: Tensor) -> dict[str, Tensor]:
        """Converts one label map.

        Args:
            label: (H, W) integers, 0 to K - 1 or `ignore_index`.

        Returns:
            `labels` (T,) int64, the occurring classes in ascending order, empty if all pixels are ignored; `masks` (T,
            H, W) bool; and `valid` (H, W) bool, false for ignored pixels.

        Raises:
            DataError: a label is neither a class nor `ignore_index`.
        """
        valid = label != self.ignore_index
        labels = label[valid].unique().long()
        wrong = labels[(labels < 0) | (labels >= self.num_classes)].tolist()
        if wrong:
            raise DataError(
                f"The label map holds {wrong}; with {self.num_classes} classes the labels are 0 to "
                f"{self.num_classes - 1}, and {self.ignore_index} for ignored pixels"
            )
        return {"labels": labels, "masks": label == labels[:, None, None], "valid": valid}

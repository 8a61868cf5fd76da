"""From label maps to the sets of masks that Mask2Former is trained with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dinov3.eval.segmentation.data.labels import IGNORE_INDEX
from dinov3.utils.errors import DataError


@dataclass(frozen=True)
class SemanticToM2FTargets:
    """Makes one mask of each class that occurs in an image."""

    num_classes: int
    """K."""
    ignore_index: int = IGNORE_INDEX
    """Label of the pixels that belong to no mask and do not count."""

    def __call__(self, label: Tensor) -> dict[str, Tensor]:
        """Converts one label map.

        Args:
            label: (H, W) integers, 0 to K - 1 or `ignore_index`.

        Returns:
            `labels` (T,) int64, the classes that occur, ascending, none of them if all pixels are ignored; `masks`
            (T, H, W) bool; and `valid` (H, W) bool, the pixels that count.

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

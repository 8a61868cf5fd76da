"""Agreement of two masks object by object, for cells, nuclei or lesions."""

from __future__ import annotations

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_OVERLAP, Metric, register_metric

_OBJECTS = (
    "Objects are connected components, with 8 neighbours in 2D and 26 in 3D; two match if they share more than half "
    "of their union."
)


@register_metric("ObjectF1")
class ObjectF1(Metric):
    """F1 score of matched objects, also called recognition quality."""

    meaning = "object-wise F1 score"
    definition = f"twice the matched objects, divided by the objects of both masks. {_OBJECTS}"
    higher_is_better = True
    empty_masks = AS_OVERLAP

    def compute(self, pair: MaskPair) -> float:
        found = pair.objects
        return 2 * len(found.ious) / (found.num_predicted + found.num_reference)


@register_metric("PQ")
class PanopticQuality(Metric):
    """Panoptic quality of one class: F1 score times mean intersection over union of the matches.

    Source: Kirillov et al., "Panoptic segmentation", CVPR 2019, equation 1.
    """

    meaning = "panoptic quality"
    definition = (
        f"twice the sum of the intersections over union of matched objects, divided by the objects of both masks. "
        f"{_OBJECTS}"
    )
    higher_is_better = True
    empty_masks = AS_OVERLAP

    def compute(self, pair: MaskPair) -> float:
        found = pair.objects
        return 2 * sum(found.ious) / (found.num_predicted + found.num_reference)

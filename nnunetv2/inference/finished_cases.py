"""Which cases an earlier prediction has finished, for `--continue_prediction`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunetv2.errors import DataError, NNUNetError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.geometry import placement_differences, spacings_agree
from nnunetv2.imageio.stored_grid import grid_of_image, grid_of_segmentation
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.probability_files import check_probabilities
from nnunetv2.utilities.restricted_pickle import load_restricted

logger = logging.getLogger(__name__)

_PART = 2**16  # voxels


class FinishedCases:
    """Recognises cases whose output files are whole and belong to the case and the model.

    The segmentation is read whole, which takes about a tenth of a second for a CT, and compared with the header of the
    image. Probabilities are decompressed once to verify their checksum.

    Args:
        save_probabilities: whether the case needs its `.npz` and `.pkl`.
    """

    def __init__(self, plans_manager: PlansManager, dataset_json: dict, save_probabilities: bool) -> None:
        self._reader: BaseReaderWriter = plans_manager.image_reader_writer_class()
        self._transpose = plans_manager.transpose_forward
        self._ending = dataset_json["file_ending"]
        labels = plans_manager.get_label_manager(dataset_json)
        self._labels, self._num_outputs = _predicted_labels(labels), labels.num_segmentation_heads
        self._save_probabilities = save_probabilities

    def __contains__(self, case: tuple[Sequence[str], str]) -> bool:
        """Whether a case, its image files and its output path without ending, needs no prediction."""
        images, output = case
        segmentation = output + self._ending
        if not os.path.isfile(segmentation):
            return False
        try:
            self._check(images, output)
        except Exception as err:  # readers raise various errors on damaged files
            reason = str(err) if isinstance(err, NNUNetError) else f"{type(err).__name__}: {err}"
            logger.warning("%s exists but is not kept: %s; predicting it again", segmentation, reason)
            return False
        return True

    def _check(self, images: Sequence[str], output: str) -> None:
        file = output + self._ending
        if any(os.path.getmtime(image) > os.path.getmtime(file) for image in images):
            raise DataError("an image of the case is newer")
        segmentation, properties = self._reader.read_seg(file)
        if not has_only(segmentation, self._labels):
            raise DataError("it has values that are not labels of the model")
        own = grid_of_segmentation(file, segmentation, properties, self._reader)
        differences = own.differences(grid_of_image(images, self._reader))
        if differences:
            raise DataError(f"its voxel grid is not that of the image: {' and '.join(differences)}")
        if self._save_probabilities:
            check_probabilities(output, (self._num_outputs, *segmentation.shape[1:]))
            self._check_properties(f"{output}.pkl", segmentation.shape[1:], properties)

    def _check_properties(self, path: str, shape: Sequence[int], expected: dict[str, Any]) -> None:
        found = load_restricted(path)
        try:
            same_shape = list(found["shape_before_cropping"]) == [shape[axis] for axis in self._transpose]
            same_place = spacings_agree(found, expected) and not placement_differences(found, expected)
        except (TypeError, KeyError, ValueError) as err:
            raise DataError(f"{path} does not hold the properties of an image") from err
        if not (same_shape and same_place):
            raise DataError(f"{path} describes another image")


def has_only(segmentation: np.ndarray, labels: Sequence[int]) -> bool:
    """Whether all values of an array are among these labels, integers of at least 0."""
    known = np.zeros(max(labels) + 1, dtype=bool)
    known[list(labels)] = True
    flat = segmentation.reshape(-1)
    # In parts that fit into the processor's cache, which is several times faster for large volumes.
    return all(_is_known(flat[first : first + _PART], known) for first in range(0, flat.size, _PART))


def _is_known(values: np.ndarray, known: np.ndarray) -> bool:
    # First the bounds, because the conversion is undefined beyond them and for NaN.
    if not (values.min() >= 0 and values.max() < len(known)):
        return False
    whole = values.astype(np.intp)
    return bool((whole == values).all() and known[whole].all())


def _predicted_labels(labels: LabelManager) -> list[int]:
    return sorted({0, *labels.all_labels, *(labels.regions_class_order or ())})

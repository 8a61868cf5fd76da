"""Validate arrays that are predicted in place of image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunetv2.errors import DataError, UsageError

_ASK_READER = "the reader that plans.json names returns it with the image"


def checked_image(image: Any, num_channels: int) -> np.ndarray:
    """Convert an image to an array (C, Z, Y, X) and validate it.

    Args:
        image: an array, or anything that numpy can convert to one.
        num_channels: C of the model.

    Raises:
        UsageError: it cannot be converted to an array.
        DataError: its shape or its values are invalid.
    """
    image = _numbers(image, "image")
    if image.ndim != 4 or 0 in image.shape:
        raise DataError(
            f"The image has shape {image.shape}; it must be (C, Z, Y, X), for 2-D images (C, 1, Y, X), without zeros"
        )
    if len(image) != num_channels:
        raise DataError(f"The image has {len(image)} channels; this model needs {num_channels}, as (C, Z, Y, X)")
    return image


def checked_previous_stage(labels: Any, image: np.ndarray) -> np.ndarray:
    """Convert the previous stage's label map of an image (C, Z, Y, X) to an array (1, Z, Y, X) and validate it.

    Raises:
        UsageError: it cannot be converted to an array.
        DataError: its shape or its values are invalid.
    """
    labels = _numbers(labels, "segmentation of the previous stage")
    wanted = (1, *image.shape[1:])
    if labels.shape != wanted:
        raise DataError(f"The segmentation of the previous stage has shape {labels.shape}; it must be {wanted}")
    if not np.array_equal(labels, np.trunc(labels)):  # NaN is not equal to itself
        raise DataError("The segmentation of the previous stage must have whole numbers, the labels")
    return labels


def check_label_values(labels: np.ndarray, accepted: Sequence[int], name: str, stage: str) -> None:
    """Reject arrays that are not label maps, such as an image given in place of a segmentation.

    Args:
        labels: of any shape.
        accepted: valid values.
        name: of the segmentation, for the start of the message.
        stage: the configuration that produces such segmentations.

    Raises:
        DataError: there are other values.
    """
    whole = labels
    if labels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN does not convert; the comparison below rejects it
            whole = labels.astype(np.int32)  # np.isin uses a fast lookup table for integers
    others = labels[(whole != labels) | ~np.isin(whole, accepted)]
    if others.size:
        raise DataError(
            f"{name} is no segmentation by {stage}: {others.size} voxels have values other than its labels "
            f"({', '.join(map(str, accepted))}), such as {others[0]:g}; predict the images with {stage} first, and "
            f"give its output"
        )


def check_properties(properties: Any) -> None:
    """Require a dictionary with the key `spacing`, (Z, Y, X) in mm.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(properties, Mapping) or "spacing" not in properties:
        raise UsageError(f"The properties of an image must be a dictionary with the key 'spacing'; {_ASK_READER}")
    spacing = properties["spacing"]
    try:
        values = np.asarray(spacing, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (3,) or not (np.isfinite(values) & (values > 0)).all():
        raise UsageError(f"The spacing of the image is {spacing}; it must be three positive numbers, (Z, Y, X) in mm")


def check_lengths(**lists: Sequence[Any] | None) -> None:
    """Raise `UsageError` unless all given lists have one entry per image."""
    lengths = {name: len(values) for name, values in lists.items() if values is not None}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{length} {name.replace('_', ' ')}" for name, length in lengths.items())
        raise UsageError(f"There must be one entry per image in each list; there are {described}")


def _numbers(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as err:  # a tensor on a GPU, a list of arrays of different shapes
        raise UsageError(f"The {name} is of type {type(value).__name__}; give a numpy array") from err
    if array.dtype.kind not in "biuf":
        raise DataError(f"The {name} has dtype {array.dtype}; it must have integer or floating point numbers")
    return array

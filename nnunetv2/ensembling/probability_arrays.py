"""Read predicted probabilities, and check from the file headers whether they can be averaged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnunetv2.errors import DataError

if TYPE_CHECKING:
    import numpy as np


def read_probabilities(path: str | os.PathLike) -> np.ndarray:
    """Read the array `probabilities` of an `.npz` file as float32.

    Raises:
        DataError: the file is damaged, or has no such array.
    """
    import numpy as np

    from nnunetv2.utilities.probability_files import ARRAY, errors_named

    with errors_named(path), np.load(path, allow_pickle=False) as content:
        return content[ARRAY].astype(np.float32, copy=False)


def require_matching(files_of_cases: Mapping[str, Sequence[str | os.PathLike]], num_outputs: int) -> None:
    """Reject probabilities that cannot be averaged before the work starts; reads only the headers of the files.

    Args:
        files_of_cases: `.npz` files of each case.
        num_outputs: number of output channels K that the labels need.

    Raises:
        DataError: names the case, and the file that is damaged or does not match the first one or the labels.
    """
    from nnunetv2.utilities.probability_files import probability_shape

    for case, (first, *others) in files_of_cases.items():
        try:
            shape = probability_shape(first)
            for path in others:
                require_same_shape(path, probability_shape(path), first, shape)
            require_outputs(first, shape, num_outputs)
        except DataError as err:
            raise DataError(f"Case {case}: {err}") from err


def require_same_shape(
    path: str | os.PathLike, shape: tuple[int, ...], first: str | os.PathLike, first_shape: tuple[int, ...]
) -> None:
    if shape != first_shape:
        raise DataError(
            f"{os.fspath(path)} has probabilities of shape {shape} and {os.fspath(first)} of {first_shape} "
            f"(classes, z, y, x); only predictions of one image for the same classes can be averaged"
        )


def require_outputs(path: str | os.PathLike, shape: tuple[int, ...], num_outputs: int) -> None:
    if shape[:1] != (num_outputs,):
        raise DataError(
            f"{os.fspath(path)} has probabilities of {shape[0] if shape else 0} classes, and the labels of the dataset "
            f"need {num_outputs}; give the dataset.json that these models were trained with"
        )

"""Predictions on a GPU: logits become labels there, and only these are copied to the host."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.pretend_cuda.prediction import Predicted, predict


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("folds", [(0,), (0, 1)], ids=str)
def test_only_labels_are_copied(
    folds: tuple[int, ...], written: bool, cuda_process: ProcessPoolExecutor, tmp_path: Path
) -> None:
    def predicted(*, on_device: bool) -> Predicted:
        output = tmp_path / f"on_device_{on_device}" if written else None
        return cuda_process.submit(predict, "3d_fullres", folds, output, on_device=on_device).result()

    before, now = predicted(on_device=False), predicted(on_device=True)
    np.testing.assert_array_equal(now.segmentation, before.segmentation)
    assert len(np.unique(now.segmentation)) > 1
    assert now.bytes_to_host < before.bytes_to_host
    assert now.bytes_to_host <= math.prod(now.segmentation.shape) + 64  # a byte per voxel, and some numbers
    # Image and weights to the device, whether logits are finite; none of the waits depends on the number of tiles.
    assert len(before.waits) == 3 * len(folds) + 1, before.waits
    # Two axes' matrices and the nearest planes, when the device has nothing left to do; the labels.
    assert len(now.waits) == 3 * len(folds) + 3 + 1, now.waits

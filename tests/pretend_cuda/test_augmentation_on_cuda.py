"""Augmentation on CUDA: no wait of the host, few launches, and the batches of the CPU."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.pretend_cuda import augmentation

LABELS_IN_WORKERS = {"3d, cascade", "2d, tubes"}
# Launches of a batch of four samples with every transform applied to half of them.
MOST_LAUNCHES = {
    "2d": 3,
    "2d, regions, ignore": 3,
    "2d, tubes": 3,
    "3d": 3,
    "3d, cascade": 3,
    "few slices": 3,
    "resize, crop, flip": 3,
}


@pytest.mark.parametrize("name", MOST_LAUNCHES)
def test_the_host_does_not_wait(name: str, cuda_process: ProcessPoolExecutor, folder: Path) -> None:
    augmented = cuda_process.submit(augmentation.augment, name).result()
    assert augmented.waits == []
    assert augmented.staged == []
    assert augmented.bytes_to_host == 0
    assert set(augmented.on_device) == {(True, name not in LABELS_IN_WORKERS)}
    assert augmented.largest_difference < 1e-4
    assert augmented.labels_differ == 0
    assert max(augmented.launches) <= MOST_LAUNCHES[name], augmented.launches


def test_labels_stay_on_the_host_for_losses_that_read_them_there(
    cuda_process: ProcessPoolExecutor, folder: Path
) -> None:
    augmented = cuda_process.submit(partial(augmentation.augment, "2d", keeps_labels=True)).result()
    assert augmented.waits == augmented.staged == []
    assert set(augmented.on_device) == {(True, False)}
    assert augmented.labels_differ == 0

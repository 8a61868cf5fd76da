"""Augmentation on CUDA: no wait of the host, few launches, and the batches of the CPU."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.pretend_cuda import augmentation, whole_training

LABELS_IN_WORKERS = {"3d, cascade", "2d, tubes"}
# Launches of a batch of four samples with every transform applied to half of them.
MOST_LAUNCHES = {
    "2d": 340,
    "2d, regions, ignore": 340,
    "2d, tubes": 165,
    "3d": 600,
    "3d, cascade": 215,
    "few slices": 355,
    "resize, crop, flip": 45,
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


@pytest.mark.parametrize("what", ["images", "images, query head", "volumes"])
def test_a_training_does_not_wait_for_its_batches(what: str, cuda_process: ProcessPoolExecutor, folder: Path) -> None:
    if what == "volumes":
        train = partial(whole_training.train_volumes, primus=False, augmentation_device="cuda")
    else:
        head = "eomt" if "query" in what else "segformer"
        train = partial(whole_training.train_images, vit=True, head=head, augmentation_device="cuda")
    trained = cuda_process.submit(train, folder).result()
    assert "Epoch 1" in trained.log
    assert trained.num_batches == 5  # the one that starts the workers, and two per epoch
    assert trained.waits_for_batches == []
    assert not any("mask_targets" in wait for wait in trained.waits)  # which labels occur is known on the host

"""Trainings on CUDA from the first batch to the scores of whole cases."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.pretend_cuda import whole_training


def test_a_unet_trains_and_validates(cuda_process: ProcessPoolExecutor, folder: Path) -> None:
    trained = cuda_process.submit(partial(whole_training.train_images, vit=False), folder).result()
    assert "Epoch 1" in trained.log
    assert trained.summary


@pytest.mark.parametrize("primus", [False, True])
def test_networks_of_volumes_train(primus: bool, cuda_process: ProcessPoolExecutor, folder: Path) -> None:
    trained = cuda_process.submit(partial(whole_training.train_volumes, primus=primus), folder).result()
    assert "Epoch 1" in trained.log


def test_frozen_weights_are_halved_while_training_and_saved_as_they_were(
    cuda_process: ProcessPoolExecutor, folder: Path
) -> None:
    trained = cuda_process.submit(partial(whole_training.train_images, vit=True), folder).result()
    assert "Epoch 1" in trained.log
    assert trained.summary
    assert trained.precisions == trained.trained_precisions == {"torch.bfloat16"}
    assert trained.frozen > 0
    assert trained.changed == []

"""A process that pretends to have a CUDA device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.pretend_cuda import guard
from tests.pretend_cuda.training import set_up_process


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the roots of nnU-Net for the process."""
    return tmp_path_factory.mktemp("pretend_cuda")


@pytest.fixture(scope="package")
def cuda_process(folder: Path) -> Iterator[ProcessPoolExecutor]:
    """One process for all tests, as a new one takes seconds to import torch; it leaves this one as it is."""
    if (reason := guard.reason_to_skip()) is not None:
        pytest.skip(reason)
    context = multiprocessing.get_context("spawn")  # a forked one would share what torch has already started
    with ProcessPoolExecutor(1, context, set_up_process, (folder,)) as process:
        yield process

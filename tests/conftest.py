"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def _shared_folder() -> Path:
    """Oracle recordings and real datasets live outside the repository: `NNUNET_SHARED`, else a sibling `shared`."""
    return Path(os.environ.get("NNUNET_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    folder = _shared_folder()
    if not folder.is_dir():
        pytest.skip("needs the shared folder with oracle recordings and datasets (set NNUNET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def oracle_recorded(shared_folder: Path) -> Path:
    folder = shared_folder / "oracle" / "recorded"
    if not folder.is_dir():
        pytest.skip(f"no recordings of upstream below {shared_folder}")
    return folder


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty raw, preprocessed and results roots, named by the environment variables for the length of one test."""
    folders = {}
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folders[variable] = tmp_path / variable
        folders[variable].mkdir()
        monkeypatch.setenv(variable, str(folders[variable]))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("nnUNet_compile", "f")
    return folders


@pytest.fixture
def seeded() -> int:
    """Seeds Python, numpy and torch; returns the seed."""
    import torch

    seed = 1234
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)

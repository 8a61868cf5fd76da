"""What tests of comparisons share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.comparison.model_folders import write_dataset


@pytest.fixture
def place(nnunet_folders: dict[str, Path], tmp_path: Path) -> Path:
    """An empty folder for models of a dataset that is there."""
    write_dataset(nnunet_folders)
    return tmp_path

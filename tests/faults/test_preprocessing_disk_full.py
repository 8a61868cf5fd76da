"""Preprocessing onto a full disk ends with one line and leaves the earlier results (row 2's sibling)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import preprocess_entry
from tests.faults import volumes
from tests.faults.conftest import one_line
from tests.faults.injection import largest_file, times

CASES = "nnUNetPlans_3d_fullres"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("num_processes", [1, 2][: times(1, 2)])
def test_a_full_disk(preprocessed_volumes: Path, run: Callable, num_processes: int) -> None:
    before = files_of(preprocessed_volumes)
    largest = max(len(content) for name, content in before.items() if name.endswith(".b2nd"))
    # Starting worker processes takes seconds, so that there are fewer rounds with them.
    for size in np.linspace(1000, largest - 1, times(4, 40 if num_processes == 1 else 4)).astype(int):
        with largest_file(int(size)):
            words = ["-d", volumes.NUMBER, "-c", "3d_fullres", "-np", num_processes, "--no_pbar"]
            code, said = run(preprocess_entry, *words)
        assert code == 1
        one_line(said)
        after = files_of(preprocessed_volumes)
        assert {name: after[name] for name in before} == before
        assert [name for name in after.keys() - before.keys() if not name.endswith(".lock")] == []
        assert not [
            path for path in preprocessed_volumes.iterdir() if path.name.startswith(f".{CASES}.") and path.is_dir()
        ]
    assert run(preprocess_entry, "-d", volumes.NUMBER, "-c", "3d_fullres", "-np", 1, "--no_pbar")[0] == 0

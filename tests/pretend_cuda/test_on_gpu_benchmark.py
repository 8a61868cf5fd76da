"""`benchmarks.on_gpu` runs where it has never met a card, so that it does when there is one."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.pretend_cuda import benchmark


@pytest.mark.slow
def test_every_section_has_a_result_for_every_model(cuda_process: ProcessPoolExecutor, tmp_path: Path) -> None:
    sections = cuda_process.submit(benchmark.sections, tmp_path).result()
    kinds_of_batches = sections.pop("augmentation")
    assert [row["batches"] for row in kinds_of_batches["rows"]] == ["2-D", "3-D", "few slices"]
    assert all(row["device"] > 0 and row["MB copied"] > 0 for row in kinds_of_batches["rows"])
    assert set(sections) == {"correctness", "precisions", "steps", "prediction"}
    for name, section in sections.items():
        assert "failed" not in section, (name, section)
        assert {row["model"] for row in section["rows"]} == set(benchmark.MEASURED)
    assert all(row["equal"] for row in sections["correctness"]["rows"])
    assert all(row["finite"] for row in sections["precisions"]["rows"])
    # Three by three windows in four mirrored copies, as one batch or as several.
    assert all(1 <= row["forward passes"] <= 36 for row in sections["prediction"]["rows"])

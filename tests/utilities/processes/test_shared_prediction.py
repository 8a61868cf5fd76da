"""Cases shared by several processes, and what is said when some of them fail."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.processes.case_failures import CaseFailures, PartialPredictionError
from nnunetv2.utilities.processes.shared_prediction import Outcome, raise_any, share_of

GOOD, IDLE = Outcome(True), Outcome(False)
DAMAGED = Outcome(True, DataError, "b (damaged)")
MISSING = Outcome(True, DataError, "c (missing)")
PART = Outcome(True, PartialPredictionError, "1 of 2 cases failed: b (damaged); the others are complete")


@pytest.mark.parametrize(("part_id", "num_parts"), [(0, 1), (1, 3)])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_shares_make_up_the_part(part_id: int, num_parts: int, world_size: int) -> None:
    cases = list(range(20))
    shares = [share_of(part_id, num_parts, rank, world_size) for rank in range(world_size)]
    predicted = sorted(case for share in shares for case in cases[share["part_id"] :: share["num_parts"]])
    assert predicted == cases[part_id::num_parts]


@pytest.mark.parametrize("outcomes", [[GOOD, GOOD], [GOOD, IDLE], [IDLE, IDLE]])
def test_success_is_silent(outcomes: list[Outcome]) -> None:
    raise_any(outcomes)


@pytest.mark.parametrize(
    ("outcomes", "error", "message"),
    [
        ([DAMAGED, DAMAGED], DataError, r"^b \(damaged\)$"),
        ([IDLE, DAMAGED], DataError, r"^b \(damaged\)$"),
        ([DAMAGED, MISSING], DataError, r"^b \(damaged\); c \(missing\)$"),
        ([GOOD, DAMAGED], PartialPredictionError, r"^1 of 2 processes .*\(process 1: b \(damaged\)\)$"),
        ([PART, GOOD, MISSING], PartialPredictionError, r"^2 of 3 .*process 0: 1 of 2 .*; process 2: c \(missing\)"),
        ([PART, DAMAGED], PartialPredictionError, "^2 of 2 processes had cases that failed"),
        ([Outcome(True, UsageError, "no model")] * 3, UsageError, "^no model$"),
    ],
)
def test_failures_are_those_of_one_process(outcomes: list[Outcome], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        raise_any(outcomes)


def _record_failures(folder: str, first: int) -> None:
    for number in range(first, first + 20):
        failures = CaseFailures()
        with failures.of(f"case_{number:02}"):
            raise DataError("damaged")
        failures.write(folder)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs locks between processes")
def test_processes_do_not_lose_each_others_failures(tmp_path: Path) -> None:
    threads = [threading.Thread(target=_record_failures, args=(str(tmp_path), first)) for first in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(read_json(tmp_path / "failures.json")) == [f"case_{number:02}" for number in range(60)]


def test_failures_that_cannot_be_written_are_still_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "failures.json").mkdir()  # as on a full disk, the file cannot be replaced
    failures = CaseFailures()
    with failures.of("b"):
        raise DataError("b.png could not be written, disk full")
    failures.write(str(tmp_path))
    assert "failures.json" in caplog.messages[-1]
    with pytest.raises(PartialPredictionError, match="1 of 2 cases failed: b .*disk full.*; the others are complete"):
        failures.raise_any(2)

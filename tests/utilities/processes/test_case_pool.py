from __future__ import annotations

import os

import psutil
import pytest

from nnunetv2.errors import DataError, NNUNetError, UsageError
from nnunetv2.utilities.processes import case_pool
from nnunetv2.utilities.processes.case_pool import map_cases


def scaled(number: int, factor: int) -> tuple[int, int]:
    return number * factor, os.getpid()


def refuse(name: str) -> None:
    raise DataError(f"{name} is not usable")


def die(name: str) -> None:
    os._exit(9)


def test_results_come_in_order_from_this_process_for_one_worker():
    results = list(map_cases(scaled, [(n, 2) for n in range(4)], 1))
    assert results == [(n * 2, os.getpid()) for n in range(4)]


def test_workers_never_outnumber_jobs():
    assert list(map_cases(scaled, [(3, 3)], 8)) == [(9, os.getpid())]


def test_small_files_are_read_by_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(case_pool, "num_available_cores", lambda: 2)
    monkeypatch.setattr(case_pool, "ProcessPoolExecutor", None)  # none is started
    (tmp_path / "small").write_bytes(b"1")
    files = [tmp_path / "small", tmp_path / "missing"]
    assert list(map_cases(scaled, [(n, 2) for n in range(4)], 2, files=files)) == [
        (n * 2, os.getpid()) for n in range(4)
    ]
    with pytest.raises(DataError, match="^Case x: first is not usable$"):
        list(map_cases(refuse, [("first",), ("second",)], 2, names=["x", "y"], files=files))


@pytest.mark.slow
def test_workers_help_when_small_files_take_long(tmp_path, monkeypatch):
    monkeypatch.setattr(case_pool, "num_available_cores", lambda: 2)
    clock = iter([0.0, 0.0, case_pool._SECONDS_ALONE, case_pool._SECONDS_ALONE])
    monkeypatch.setattr(case_pool.time, "process_time", lambda: next(clock))
    results = list(map_cases(scaled, [(n, 2) for n in range(5)], 2, names=list("abcde"), files=[]))
    assert [value for value, _ in results] == [0, 2, 4, 6, 8]
    assert [process == os.getpid() for _, process in results] == [True, False, False, False, False]


def test_large_files_are_left_to_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(case_pool, "num_available_cores", lambda: 2)
    monkeypatch.setattr(case_pool, "_in_workers", lambda *_: (call for call in [lambda: "worker"]))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(case_pool._FEW_BYTES)
    assert list(map_cases(scaled, [(1, 1), (2, 2)], 2, files=[tmp_path / "large"])) == ["worker"]


def test_no_jobs_give_no_results():
    assert list(map_cases(scaled, [], 4)) == []


def test_number_of_processes_must_be_positive():
    with pytest.raises(UsageError, match="number of processes is 0"):
        list(map_cases(scaled, [(1, 1)], 0))


def divide(numerator: int, denominator: int) -> float:
    return numerator / denominator


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_errors_name_their_case(num_processes, monkeypatch):
    monkeypatch.setattr(case_pool, "num_available_cores", lambda: 2)
    names = ["good", "bad"]
    with pytest.raises(RuntimeError, match="Case bad failed: ZeroDivisionError"):
        list(map_cases(divide, [(1, 2), (1, 0)], num_processes, names=names))
    with pytest.raises(DataError, match="^Case good: first is not usable$"):
        list(map_cases(refuse, [("first",), ("second",)], num_processes, names=names))


def _workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_workers_keep_order_pass_errors_on_and_their_death_is_explained(monkeypatch):
    monkeypatch.setattr(case_pool, "num_available_cores", lambda: 2)
    results = list(map_cases(scaled, [(n, 2) for n in range(4)], 2))
    assert [value for value, _ in results] == [0, 2, 4, 6]
    assert os.getpid() not in {process for _, process in results}
    with pytest.raises(DataError, match="case_1 is not usable") as failure:
        list(map_cases(refuse, [("case_1",), ("case_2",)], 2))
    assert not _workers(), failure  # although the error, which knows all frames, is still there
    with pytest.raises(NNUNetError, match="killed, most likely because memory ran out while .* finished: x, y; use"):
        list(map_cases(die, [("case_1",), ("case_2",)], 2, names=["x", "y"]))

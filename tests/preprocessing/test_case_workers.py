"""Work on cases in processes; this file imports little, because every worker imports it too."""

from __future__ import annotations

import os

import pytest

from nnunetv2.errors import DataError, NNUNetError
from nnunetv2.preprocessing.preprocessors.case_workers import run_for_each_case


def divide(numerator: int, denominator: int) -> float:
    return numerator / denominator


def refuse(reason: str) -> None:
    raise DataError(reason)


def die(code: int) -> None:
    os._exit(code)


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_errors_name_their_case(num_processes):
    with pytest.raises(RuntimeError, match="Case bad failed: ZeroDivisionError"):
        run_for_each_case(divide, {"good": (1, 2), "bad": (1, 0)}, num_processes, "", show_progress=False)
    with pytest.raises(DataError, match="^Case bad: no voxels$"):
        run_for_each_case(refuse, {"bad": ("no voxels",), "worse": ("no voxels",)}, 1, "", show_progress=False)


@pytest.mark.slow
def test_a_lost_worker_is_reported_with_the_cases_it_may_have_had():
    with pytest.raises(NNUNetError, match=r"not finished: x, y; use fewer processes \(-np\)"):
        run_for_each_case(die, {"x": (1,), "y": (1,)}, 2, "", show_progress=False)


def test_every_case_is_called_and_progress_is_shown(capsys):
    done = []
    run_for_each_case(done.append, {"a": (1,), "b": (2,)}, 0, "Working")
    assert done == [1, 2]
    assert "Working: 100%" in capsys.readouterr().err
    run_for_each_case(done.append, {}, 4, "Working", show_progress=False)

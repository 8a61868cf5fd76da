"""Assignments in plain torch: scipy's optimum, one operation count for all costs."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.utils._python_dispatch import TorchDispatchMode

from dinov3.eval.segmentation.loss.device_assignment import assign_rows

SHAPES = ((1, 1), (1, 5), (3, 3), (4, 9), (12, 12), (12, 40))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0])
def test_assignment_is_the_one_of_scipy(seeded, shape, offset):
    costs = torch.randn(30, *shape) + offset
    columns = assign_rows(costs)
    for cost, chosen in zip(costs, columns, strict=True):
        assert chosen.tolist() == linear_sum_assignment(cost.numpy())[1].tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_with_many_equal_costs_the_sum_is_optimal(seeded, shape):
    costs = torch.randint(4, (30, *shape)).float()
    columns = assign_rows(costs)
    for cost, chosen in zip(costs, columns, strict=True):
        rows, best = linear_sum_assignment(cost.numpy())
        assert len(set(chosen.tolist())) == len(chosen)
        assert cost[rows, chosen].sum() == cost[rows, best].sum()


def test_a_row_gives_way_along_the_whole_path():
    """Each row prefers the column of the one before it, which the last row takes: all three move by one."""
    costs = torch.tensor([[[1.0, 2.0, 9.0], [9.0, 1.0, 2.0], [0.0, 9.0, 9.0]]])
    assert assign_rows(costs).tolist() == [[1, 2, 0]]


class CountOperations(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_operations_do_not_depend_on_the_costs(seeded):
    numbers = set()
    for costs in (torch.zeros(2, 5, 8), torch.randn(2, 5, 8), torch.arange(80.0).view(2, 5, 8)):
        with CountOperations() as operations:
            assign_rows(costs)
        numbers.add(operations.number)
    assert len(numbers) == 1


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_number_of_operations_is_what_the_settings_say(rows):
    with CountOperations() as operations:
        assign_rows(torch.rand(20, rows, 100))
    assert operations.number <= 30 * rows * (rows + 1)


def test_costs_are_left_as_they_are(seeded):
    costs = torch.randn(1, 3, 4, dtype=torch.float64)
    before = costs.clone()
    assign_rows(costs)
    assert torch.equal(costs, before)

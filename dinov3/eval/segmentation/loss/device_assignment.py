"""Optimal assignments of many small problems at once, on the device of their costs and without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def assign_rows(costs: Tensor) -> Tensor:
    """Assigns each row a column of its own so that the sum of the costs is as small as possible.

    The rows are assigned one after another along the shortest augmenting path. The number of operations depends on
    the shape alone: T (T + 1) / 2 steps of a search, about 20 T (T + 1) operations. A search that has arrived at a free
    column repeats its last step, which changes nothing.

    Args:
        costs: (R, T, Q), finite; R problems of T rows and Q columns, T at most Q.

    Returns:
        (R, T) int64, the column of each row.

    Source: Crouse 2016, "On implementing 2D rectangular assignment algorithms", IEEE Transactions on Aerospace and
    Electronic Systems 52(4), the algorithm of `scipy.optimize.linear_sum_assignment`.
    """
    costs = costs.double()
    num_problems, num_rows, num_columns = costs.shape
    # With these prices no reduced cost is negative, so that a path that is found does not become shorter by repetition.
    row_price, column_price = costs.amin(dim=2), costs.new_zeros(num_problems, num_columns)
    column_of = torch.zeros_like(row_price, dtype=torch.long)
    row_of = torch.full_like(column_price, -1, dtype=torch.long)  # -1: the column is free
    for row in range(num_rows):
        end, distance, length, reached, previous = _shortest_path(costs, row, row_price, column_price, row_of)
        change = torch.where(reached, length - distance, 0)
        column_price -= change
        row_price.scatter_add_(1, row_of.clamp(min=0), change)  # columns that are free have a change of 0
        row_price[:, row] += length[:, 0]
        _augment(end, row, previous, column_of, row_of)
    return column_of


def _shortest_path(
    costs: Tensor, row: int, row_price: Tensor, column_price: Tensor, row_of: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Searches the nearest free column from a row.

    Returns:
        (R, 1) that column; (R, Q) distances of all columns; (R, 1) its distance; (R, Q) which assigned columns were
        passed; (R, Q) the row from which each column is reached.
    """
    num_problems, _, num_columns = costs.shape
    distance = torch.full_like(column_price, torch.inf)
    reached = torch.zeros_like(column_price, dtype=torch.bool)
    previous = torch.zeros_like(row_of)
    current = row_of.new_full((num_problems, 1), row)
    length = costs.new_zeros(num_problems, 1)
    free = row_of < 0
    columns = torch.arange(num_columns, device=costs.device)
    for _ in range(row + 1):  # the first `row` columns on the way may be assigned, the next one cannot be
        of_current = costs.gather(1, current[..., None].expand(-1, -1, num_columns))[:, 0]
        reduced = length + of_current - row_price.gather(1, current) - column_price
        nearer = ~reached & (reduced < distance)
        distance = torch.where(nearer, reduced, distance)
        previous = torch.where(nearer, current, previous)
        ahead = distance.masked_fill(reached, torch.inf)
        length = ahead.amin(dim=1, keepdim=True)
        # Of equally near columns, a free one ends the search, as in scipy.
        end = ((ahead == length) * (1 + free.to(torch.int8))).argmax(dim=1, keepdim=True)
        assigned = row_of.gather(1, end)
        reached = reached | ((columns == end) & ~free)
        current = torch.where(assigned < 0, current, assigned)
    return end, distance, length, reached, previous


def _augment(column: Tensor, row: int, previous: Tensor, column_of: Tensor, row_of: Tensor) -> None:
    """Exchanges the assignments along the path that ends at (R, 1) columns; changes `column_of` and `row_of`."""
    for _ in range(row + 1):
        predecessor = previous.gather(1, column)
        released = column_of.gather(1, predecessor)
        row_of.scatter_(1, column, predecessor)
        column_of.scatter_(1, predecessor, column)
        column = torch.where(predecessor == row, column, released)

"""Tables of failures: missed classes and the worst scores."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.report.formatting import score
from nnunetv2.comparison.report.score_tables import metric_title
from nnunetv2.comparison.report.table import Cell, Table, method_cell, number_cell, text_cell
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.statistics.trainings import distinct_runs

MOST_EMPTY, MOST_WORST = 30, 10  # rows of each table


def failure_tables(comparison: Comparison) -> list[Table]:
    """Build the failure tables; empty ones are dropped."""
    return [table for table in (_empty_predictions(comparison), _worst_scores(comparison)) if table.rows]


def _empty_predictions(comparison: Comparison) -> Table:
    table = comparison.scores
    is_missed = (table.num_reference > 0)[None] & (table.num_predicted == 0) & table.has_class[:, None, :]
    counts = {method: is_missed[table.runs_of(method)].sum(axis=0) for method in table.methods}
    places = np.argwhere(sum(counts.values()) > 0)
    totals = [int(sum(count[tuple(place)] for count in counts.values())) for place in places]
    order = sorted(range(len(places)), key=lambda number: (-totals[number], tuple(places[number])))
    rows = []
    for number in order[:MOST_EMPTY]:
        case, position = (int(place) for place in places[number])
        missing = [method for method in table.methods if counts[method][case, position]]
        runs = (f"{totals[number]} of {len(table.runs)}", f"{int(table.num_reference[case, position])} voxels")
        rows.append(
            (
                text_cell(table.cases[case]),
                text_cell(table.classes[position]),
                number_cell(*runs),
                method_cell(*missing),
            )
        )
    left_out = len(places) - len(rows)
    runs_head = Cell(("Runs", "in the reference"), is_number=True)
    return Table(
        "Nothing predicted of a class that is there",
        (text_cell("Case"), text_cell("Class"), runs_head, text_cell("Method")),
        tuple(rows),
        f"{left_out} more are in per_case.csv (n_ref above 0, n_pred 0)." if left_out else "",
    )


def _worst_scores(comparison: Comparison) -> Table:
    """Worst values of the first distance metric, else of the primary metric; means over the runs of a method."""
    table = comparison.scores
    distances = [name for name in comparison.settings.metrics if METRICS[name].is_distance]
    metric = METRICS[distances[0] if distances else comparison.settings.metrics[0]]
    values = np.stack(
        [table.values[metric.name][distinct_runs(table, method)].mean(axis=0) for method in table.methods]
    )
    badness = -values if metric.higher_is_better else values
    places = [tuple(int(part) for part in place) for place in np.argwhere(~np.isnan(values))]
    rows = []
    for place in sorted(places, key=lambda place: (-badness[place], place))[:MOST_WORST]:
        method, case, position = place
        cells = (text_cell(table.cases[case]), text_cell(table.classes[position]), method_cell(table.methods[method]))
        rows.append((*cells, number_cell(score(float(values[place]), metric.name))))
    columns = (
        text_cell("Case"),
        text_cell("Class"),
        text_cell("Method"),
        Cell((metric_title(metric.name, table.length_unit),), is_number=True),
    )
    return Table(f"Worst {metric.name}", columns, tuple(rows), "Means over the runs of the method.")

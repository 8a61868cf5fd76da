"""Tables of ranks, detection, costs and comparability."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.comparison.report.formatting import UNKNOWN, amount, percent, plain_number
from nnunetv2.comparison.report.score_tables import metric_title
from nnunetv2.comparison.report.table import Cell, Table, method_cell, number_cell, text_cell
from nnunetv2.comparison.results import DIFFERS, NOT_RECORDED, Comparison, DetectionResult, Equality, MethodCost

MOST_DETECTED = 300  # rows of the detection table
MOST_RUNS = 6  # listed by name after a value; more are counted


def rank_tables(comparison: Comparison) -> list[Table]:
    """One table per metric."""
    return [table for metric in comparison.settings.metrics if (table := _rank_table(comparison, metric)).rows]


def _rank_table(comparison: Comparison, metric: str) -> Table:
    ranks = [rank for rank in comparison.ranks if rank.metric == metric]
    num_ranks = max((len(rank.frequencies) for rank in ranks), default=0)
    heads = ("of the mean", "mean of case ranks", "by tests", *(f"rank {place + 1}" for place in range(num_ranks)))
    rows = tuple(
        (
            method_cell(rank.method),
            number_cell(plain_number(rank.mean_then_rank, 1)),
            number_cell(plain_number(rank.rank_then_mean, 2)),
            number_cell(plain_number(rank.test_based, 1)),
            *(number_cell(percent(share)) for share in rank.frequencies),
        )
        for rank in sorted(ranks, key=lambda rank: rank.mean_then_rank)
    )
    note = ""
    for stability in comparison.stability:
        if stability.metric == metric:
            low, high = (plain_number(end, 2) for end in (stability.kendall_tau.low, stability.kendall_tau.high))
            agree = "agree" if stability.schemes_agree else "do not agree"
            note = (
                f"The three schemes {agree} on the order. Kendall's tau of bootstrap rankings: {low} to {high}. Shares "
                f"of bootstrap samples of the cases in which the method takes each rank."
            )
    columns = (text_cell("Method"), *(Cell((head,), is_number=True) for head in heads))
    return Table(metric_title(metric, comparison.scores.length_unit), columns, rows, note)


def detection_table(comparison: Comparison) -> Table:
    """Classes that are absent from a case or missed in one."""
    classes = comparison.scores.classes
    shown = [each for each in comparison.detection if each.num_absent or each.missed_rate]
    shown.sort(key=lambda each: classes.index(each.class_name))
    volume = f"mean false volume ({comparison.scores.volume_unit})"
    heads = ("Absent in", "falsely predicted", volume, "Present in", "missed")
    notes = []
    if len(shown) < len(comparison.detection):
        notes.append("Classes that are in every case and never missed are left out.")
    if len(shown) > MOST_DETECTED:
        notes.append(f"{len(shown) - MOST_DETECTED} more rows are in detection.csv.")
    return Table(
        "Detection",
        (text_cell("Class"), text_cell("Method"), *(Cell((head,), is_number=True) for head in heads)),
        tuple(_detection_row(each) for each in shown[:MOST_DETECTED]),
        " ".join(notes),
    )


def _detection_row(result: DetectionResult) -> tuple[Cell, ...]:
    return (
        text_cell(result.class_name),
        method_cell(result.method),
        number_cell(str(result.num_absent)),
        number_cell(percent(result.false_positive_rate)),
        number_cell(amount(result.false_positive_volume)),
        number_cell(str(result.num_present)),
        number_cell(percent(result.missed_rate)),
    )


def compute_table(comparison: Comparison) -> Table:
    """Known costs; without any, only a note."""
    if all(cost == MethodCost(cost.method) for cost in comparison.costs):
        return Table("Costs", (), (), "Nothing is known of the costs of any method.")
    heads = (
        ("Parameters", "trained"),
        ("GFLOPs per patch", "in training"),
        ("Memory, MiB", "measured, estimated"),
        ("s per iteration", "per case"),
        ("Training hours",),
    )
    columns = (
        text_cell("Method"),
        *(Cell(lines, is_number=True) for lines in heads),
        text_cell("Patch, device, weights"),
    )
    rows = tuple(_compute_row(cost) for cost in comparison.costs)
    return Table(
        "Costs",
        columns,
        rows,
        f"{UNKNOWN}: not known. Seconds per case are those of the network on a validation case, with its tiles and "
        "mirrored copies. Training hours are those of all folds, and of all GPUs together.",
    )


def _compute_row(cost: MethodCost) -> tuple[Cell, ...]:
    patch = UNKNOWN if cost.patch_size is None else " × ".join(str(size) for size in cost.patch_size)
    about = [text for text in (cost.device, cost.pretrained) if text is not None]
    return (
        method_cell(cost.method),
        number_cell(amount(cost.num_parameters), amount(cost.num_trained_parameters)),
        number_cell(amount(cost.gflops_per_patch), amount(cost.training_gflops_per_patch)),
        number_cell(plain_number(cost.peak_memory_mib, 0), plain_number(cost.estimated_memory_mib, 0)),
        number_cell(amount(cost.seconds_per_iteration), amount(cost.seconds_per_case)),
        number_cell(amount(cost.gpu_hours)),
        text_cell(patch, *about),
    )


def comparability_table(comparison: Comparison) -> Table:
    """Checked equalities with their state and the value of each run."""
    moods = {DIFFERS: "bad", NOT_RECORDED: "open"}
    rows = tuple(
        (
            text_cell(equality.item),
            text_cell(equality.meaning),
            text_cell(equality.state, mood=moods.get(equality.state, "good")),
            text_cell(*values_of(equality)),
        )
        for equality in comparison.comparability.equalities
    )
    return Table("Comparability", tuple(text_cell(head) for head in ("Item", "Meaning", "State", "Value")), rows)


def values_of(equality: Equality) -> list[str]:
    """Distinct values, with the runs that have them unless all runs agree."""
    groups: dict[str, list[str]] = {}
    for run in sorted(equality.values):
        groups.setdefault(equality.values[run] or NOT_RECORDED, []).append(run)
    if len(groups) == 1:
        return list(groups)
    return [f"{value}: {_some(runs)}" for value, runs in sorted(groups.items())]


def _some(runs: Sequence[str]) -> str:
    if len(runs) <= MOST_RUNS:
        return "; ".join(runs)
    return f"{'; '.join(runs[:MOST_RUNS])}; and {len(runs) - MOST_RUNS} more"

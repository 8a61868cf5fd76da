"""CSV files for spreadsheets and programs: unrounded numbers, empty cells for unknown values."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.statistics.volume_agreement import volume_agreement

_ALL_CLASSES = "(mean)"  # in the class column: mean over the classes
_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # first characters of text that spreadsheets execute


def csv_texts(comparison: Comparison) -> dict[str, str]:
    """Content of each CSV file, by file name."""
    return {
        "per_case.csv": _csv(_PER_CASE, _per_case(comparison)),
        "summary.csv": _csv(_SUMMARY, _summary(comparison)),
        "tests.csv": _csv(_TESTS, _tests(comparison)),
        "ranks.csv": _ranks_csv(comparison),
        "compute.csv": _csv(_COMPUTE, _compute(comparison)),
        "detection.csv": _csv(_DETECTION, _detection(comparison)),
        "volumes.csv": _csv(_VOLUMES, _volumes(comparison)),
    }


_PER_CASE = ("dataset", "method", "seed", "run", "fold", "case", "class", "metric", "value", "n_ref", "n_pred")
_SUMMARY = (
    "method", "metric", "class", "n", "runs", "mean", "ci_low", "ci_high", "sd", "median", "q1", "q3",
    "sd_of_trainings",
)  # fmt: skip
_TESTS = (
    "first", "second", "metric", "class", "n", "mean_first", "mean_second", "mean_difference", "median_difference",
    "hodges_lehmann", "ci_low", "ci_high", "rank_biserial", "p", "p_holm", "verdict", "methods_ci_low",
    "methods_ci_high", "methods_df", "methods_p", "methods_p_holm", "methods_verdict", "methods_reason", "seeds_first",
    "seeds_second", "non_inferior_first", "non_inferior_second",
)  # fmt: skip
_COMPUTE = (
    "method", "parameters", "trained_parameters", "gflops_per_patch", "training_gflops_per_patch", "peak_memory_mib",
    "estimated_memory_mib", "seconds_per_iteration", "seconds_per_case", "gpu_hours", "patch_size", "device",
    "pretrained",
)  # fmt: skip
_DETECTION = (
    "method", "class", "n_absent", "false_positive_rate", "mean_false_positive_volume", "n_present", "missed_rate",
)  # fmt: skip
_VOLUMES = ("method", "class", "n", "bias", "limit_low", "limit_high", "unit")


def _per_case(comparison: Comparison) -> Iterator[tuple]:
    table = comparison.scores
    for position, run in enumerate(table.runs):
        for number, case in enumerate(table.cases):
            known = (comparison.dataset, run.method, run.seed, run.number, run.fold_of.get(case), case)
            for place, name in enumerate(table.classes):
                if not table.has_class[position, place]:
                    continue
                counts = (int(table.num_reference[number, place]), int(table.num_predicted[position, number, place]))
                for metric in comparison.settings.metrics:
                    value = float(table.values[metric][position, number, place])
                    yield *known, name, metric, value, *counts


def _summary(comparison: Comparison) -> Iterator[tuple]:
    for each in comparison.summaries:
        spread = (each.standard_deviation, each.median, *each.quartiles, each.seed_deviation)
        known = (each.method, each.metric, _class(each.class_name), each.num_cases, each.num_runs)
        yield *known, each.mean, each.interval.low, each.interval.high, *spread


def _tests(comparison: Comparison) -> Iterator[tuple]:
    for pair in comparison.pairs:
        trained, methods = pair.trained, pair.methods
        ends = (None, None) if methods.interval is None else (methods.interval.low, methods.interval.high)
        yield (
            *(pair.first, pair.second, pair.metric, _class(pair.class_name), pair.num_cases, *pair.means),
            *(pair.mean_difference, pair.median_difference, trained.hodges_lehmann),
            *(trained.interval.low, trained.interval.high, trained.rank_biserial),
            *(trained.p, trained.p_holm, trained.verdict),
            *(*ends, methods.degrees_of_freedom, methods.p, methods.p_holm, methods.verdict, methods.reason),
            *(*methods.num_seeds, *(pair.non_inferior or (None, None))),
        )


def _ranks_csv(comparison: Comparison) -> str:
    num_ranks = max((len(rank.frequencies) for rank in comparison.ranks), default=0)
    stability = {each.metric: each for each in comparison.stability}
    names = ("method", "metric", "mean_then_rank", "rank_then_mean", "test_based")
    shares = tuple(f"share_of_rank_{place + 1}" for place in range(num_ranks))
    rows = []
    for rank in comparison.ranks:
        about = stability.get(rank.metric)
        agreement = (
            (about.kendall_tau.low, about.kendall_tau.high, about.schemes_agree) if about else (None, None, None)
        )
        padded = rank.frequencies + (None,) * (num_ranks - len(rank.frequencies))
        ranks = (rank.mean_then_rank, rank.rank_then_mean, rank.test_based)
        rows.append((rank.method, rank.metric, *ranks, *agreement, *padded))
    return _csv((*names, "kendall_tau_low", "kendall_tau_high", "schemes_agree", *shares), rows)


def _compute(comparison: Comparison) -> Iterator[tuple]:
    for cost in comparison.costs:
        patch = None if cost.patch_size is None else "x".join(str(size) for size in cost.patch_size)
        yield (
            *(cost.method, cost.num_parameters, cost.num_trained_parameters, cost.gflops_per_patch),
            *(cost.training_gflops_per_patch, cost.peak_memory_mib, cost.estimated_memory_mib),
            *(cost.seconds_per_iteration, cost.seconds_per_case, cost.gpu_hours, patch, cost.device, cost.pretrained),
        )


def _detection(comparison: Comparison) -> Iterator[tuple]:
    for each in comparison.detection:
        absent = (each.num_absent, each.false_positive_rate, each.false_positive_volume)
        yield each.method, each.class_name, *absent, each.num_present, each.missed_rate


def _volumes(comparison: Comparison) -> Iterator[tuple]:
    for each in volume_agreement(comparison.scores):
        known = (each.method, each.class_name, len(each.differences))
        yield *known, each.bias, each.limits.low, each.limits.high, f"mm{comparison.scores.num_dimensions}"


def _class(name: str | None) -> str:
    return _ALL_CLASSES if name is None else name


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_field(value) for value in row] for row in rows)
    return text.getvalue()


def _field(value: object) -> object:
    """Convert a value to a cell; text that a spreadsheet would run as a formula is prefixed with an apostrophe."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_STARTS_FORMULA) else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value

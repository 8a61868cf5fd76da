"""Sentences about the limits of a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from nnunetv2.comparison.report.formatting import coverage, listed, p_equals
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import FEW_CASES, NOT_RECORDED, Comparison
from nnunetv2.comparison.statistics.trained_models import smallest_p
from nnunetv2.training.protocol.weights import NO_WEIGHTS, RANDOM_WEIGHTS
from nnunetv2.utilities.message_parts import counted

_MOST_ITEMS = 6  # listed by name; more are counted


def limit_statements(comparison: Comparison) -> Iterator[Statement]:
    """Yield one statement per reason to interpret the results with care."""
    yield from _broken(comparison)
    yield from _unrecorded(comparison)
    yield from _too_few_cases(comparison)
    yield from _few_cases(comparison)
    yield from _other_weights(comparison)
    yield from _schemes(comparison)
    yield from _shared_training_cases(comparison)
    yield from _worst_distances(comparison)
    yield Statement(f"All of this holds for {comparison.dataset}; on other data the methods may come in another order.")


def _broken(comparison: Comparison) -> Iterator[Statement]:
    for equality in comparison.comparability.broken:
        yield Statement(
            f"NOT COMPARABLE in {equality.item} ({equality.meaning}): it differs between the runs, which was allowed. "
            f"A difference in scores may come from this and not from the methods."
        )


def _unrecorded(comparison: Comparison) -> Iterator[Statement]:
    equalities = comparison.comparability.equalities
    items = [each.item for each in equalities if each.state == NOT_RECORDED]
    if items:
        what = listed(items) if len(items) <= _MOST_ITEMS else f"{len(items)} of {len(equalities)} items"
        yield Statement(f"Whether all runs are alike in {what} is not recorded, so it was not checked.")


def _too_few_cases(comparison: Comparison) -> Iterator[Statement]:
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    if not pairs:
        return
    num_cases = min(pair.num_cases for pair in pairs)
    smallest = smallest_p(num_cases, len(pairs))
    if num_cases and smallest >= comparison.settings.alpha:
        yield Statement(
            f"{counted(num_cases, 'case')} and {counted(len(pairs), 'pair')} cannot show a difference between trained "
            f"models: even one that is better in every case would have {p_equals(smallest)}."
        )


def _few_cases(comparison: Comparison) -> Iterator[Statement]:
    numbers = [each.num_cases for each in comparison.summaries_of(comparison.settings.metrics[0])]
    if numbers and 0 < min(numbers) < FEW_CASES:
        yield Statement(
            f"With {counted(min(numbers), 'case')}, fewer than {FEW_CASES}, the intervals "
            f"({coverage(comparison.settings)}) are too narrow: they miss the true value more often than they say."
        )


def _other_weights(comparison: Comparison) -> Iterator[Statement]:
    owners: dict[str, list[str]] = {}
    for cost in comparison.costs:
        owners.setdefault(_weights(cost.pretrained), []).append(cost.method)
    if len(owners) > 1:
        groups = "; ".join(f"{listed(methods)}: {weights}" for weights, methods in owners.items())
        yield Statement(
            f"The trainings started from different weights, and part of a difference may come from those, not from the "
            f"architecture. {groups}."
        )


def _weights(recorded: str | None) -> str:
    """Normalise recorded weights: random initialisation is the same for every network."""
    if recorded is None:
        return NOT_RECORDED
    return RANDOM_WEIGHTS if recorded == NO_WEIGHTS or recorded.endswith(RANDOM_WEIGHTS) else recorded


def _schemes(comparison: Comparison) -> Iterator[Statement]:
    metrics = [each.metric for each in comparison.stability if not each.schemes_agree]
    if metrics:
        yield Statement(
            f"The order of the methods by {listed(metrics)} depends on how ranks are made: by the mean, case by case, "
            f"or by tests."
        )


def _shared_training_cases(comparison: Comparison) -> Iterator[Statement]:
    if any(len(set(run.fold_of.values())) > 1 for run in comparison.scores.runs):
        yield Statement(
            "The models of different folds share training cases, so that cases are not wholly independent; tests and "
            "intervals take them as such."
        )


def _worst_distances(comparison: Comparison) -> Iterator[Statement]:
    """Report missed classes once: all distances share them, so the first one that has any covers the rest."""
    table = comparison.scores
    distances = [name for name in comparison.settings.metrics if name in table.num_worst_distances]
    for metric in distances:
        counts = table.num_worst_distances[metric].sum(axis=1)
        if not counts.sum():
            continue
        sums = {method: int(counts[table.runs_of(method)].sum()) for method in table.methods}
        yield Statement(
            f"Where nothing is predicted of a class that is there, {listed(distances)} {_be(distances)} set to the "
            f"diagonal of the image, which weighs heavily in a mean. Over all runs and classes this happened so often: "
            f"{', '.join(f'{method} {number}' for method, number in sums.items() if number)}."
        )
        return


def _be(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"

"""The verdict in words: who is better, by how much, with what certainty, at what cost, and what remains open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nnunetv2.comparison.report.class_statements import class_sentences, which_mean
from nnunetv2.comparison.report.cost_statements import cost_statements
from nnunetv2.comparison.report.formatting import bounds, coverage, listed, with_unit
from nnunetv2.comparison.report.leader import OrientedPair, means_of, pairs_of_leader
from nnunetv2.comparison.report.limit_statements import limit_statements
from nnunetv2.comparison.report.pair_statements import method_statements, trained_statements
from nnunetv2.comparison.report.reader_table import reader_statements
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import Comparison, MethodSummary
from nnunetv2.utilities.message_parts import counted


@dataclass(frozen=True)
class Verdict:
    """Statements of a comparison; iteration yields running text in the order of a reader's questions."""

    headline: Statement
    trained: tuple[Statement, ...]
    """about these trained models on these cases"""
    methods: tuple[Statement, ...]
    """about other trainings and other cases"""
    cost: tuple[Statement, ...]
    limits: tuple[Statement, ...]
    """what the comparison cannot show"""

    def __iter__(self) -> Iterator[str]:
        for statement in (self.headline, *self.trained, *self.methods, *self.cost, *self.limits):
            yield statement.as_sentence()


def verdict_in_words(comparison: Comparison) -> Verdict:
    """Verdict in the primary metric, mean over classes: the baseline or the best method against all others."""
    pairs = pairs_of_leader(comparison)
    return Verdict(
        headline=_headline(comparison, pairs),
        trained=(*trained_statements(comparison, pairs), *reader_statements(comparison)),
        methods=tuple(method_statements(comparison, pairs)),
        cost=tuple(cost_statements(comparison)),
        limits=tuple(limit_statements(comparison)),
    )


def _headline(comparison: Comparison, pairs: Sequence[OrientedPair]) -> Statement:
    metric = comparison.settings.primary
    summaries = means_of(comparison)
    best = summaries[0]
    if best.num_cases == 0:
        return Statement(
            f"No case of {comparison.dataset} counts in {metric.name}, so nothing is said about any method."
        )
    leaders = [each.method for each in summaries if each.mean == best.mean] or [best.method]
    extreme = "highest" if metric.higher_is_better else "lowest"
    mean = with_unit(best.mean, metric.name, comparison.scores.length_unit)
    return Statement(
        f"{listed(leaders)} {'has' if len(leaders) == 1 else 'share'} the {extreme} mean "
        f"{metric.name}{which_mean(comparison)} of {counted(len(summaries), 'method')}: {mean} "
        f"({coverage(comparison.settings)} {bounds(best.interval, metric.name)}), on "
        f"{counted(best.num_cases, 'case')} of {comparison.dataset}, with "
        f"{_trainings(summaries)}.",
        ending=" ".join(class_sentences(comparison, pairs)),
    )


def _trainings(summaries: list[MethodSummary]) -> str:
    numbers = sorted({each.num_runs for each in summaries})
    if len(numbers) == 1:
        return f"{counted(numbers[0], 'training')} of each method"
    return f"{numbers[0]} to {numbers[-1]} trainings of a method"

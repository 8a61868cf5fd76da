"""Sentences of the opening about the classes: which of them decide, where they disagree, and which are small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.report.formatting import listed, p_equals, with_unit
from nnunetv2.comparison.report.leader import OrientedPair, means_of
from nnunetv2.comparison.results import BETTER, NO_DIFFERENCE, WORSE, Comparison
from nnunetv2.comparison.statistics.trainings import DECIMALS, method_scores

SMALL_SHARE = 0.05  # of the reference voxels of the averaged classes
_MOST_NAMED = 3  # classes per side; more are counted


def class_sentences(comparison: Comparison, pairs: Sequence[OrientedPair]) -> Iterator[str]:
    """Yield what a reader has to know of the classes to understand the headline.

    Args:
        pairs: of the leader with all others.
    """
    yield from _averaged(comparison)
    yield from _methods_with_fewer_classes(comparison)
    for pair in pairs:
        yield from _disagreement(comparison, pair)
    yield from _small_classes(comparison)


def which_mean(comparison: Comparison) -> str:
    """Words behind the metric that name the classes of the mean: empty if all of them, else ` over artery and vein`."""
    table = comparison.scores
    if table.averaged is None or set(table.averaged) == set(table.classes):
        return ""
    return f" {'in' if len(table.averaged) == 1 else 'over'} {listed(list(table.averaged))}"


def _averaged(comparison: Comparison) -> Iterator[str]:
    table = comparison.scores
    if table.averaged is None or comparison.settings.primary_classes or not which_mean(comparison):
        return
    lacking = [f"{method} lacks {_names(comparison, names)}" for method, names in table.lacks.items()]
    what = "the class" if len(table.averaged) == 1 else "the classes"
    yield f"Means are over {what} that all methods have: {'; '.join(lacking)}."


def _names(comparison: Comparison, names: frozenset[str]) -> str:
    return listed([name for name in comparison.scores.classes if name in names])


def _methods_with_fewer_classes(comparison: Comparison) -> Iterator[str]:
    """Compare methods that are no part of the mean with its best method, class by class."""
    table, metric = comparison.scores, comparison.settings.metrics[0]
    complete = table.methods_of(None)
    leader = means_of(comparison)[0].method
    for method in table.methods:
        if method in complete:
            continue
        lead = f"{method} lacks {_names(comparison, table.lacks[method])} and takes no part in the mean"
        found = [
            f"in {name}, {_outcome(comparison, OrientedPair(leader, method, pair))}"
            for name in table.classes
            for pair in comparison.pairs_of(metric, name)
            if {pair.first, pair.second} == {leader, method}
        ]
        yield f"{lead}; {'; '.join(found)}." if found else f"{lead}."


def _outcome(comparison: Comparison, pair: OrientedPair) -> str:
    p = p_equals(pair.pair.trained.p_holm)
    amount = with_unit(abs(pair.advantage), pair.pair.metric, comparison.scores.length_unit)
    if pair.trained_verdict in (BETTER, WORSE):
        return f"{pair.first} is {pair.trained_verdict} than it by {amount} (Holm-adjusted {p})"
    shown = "no difference" if pair.trained_verdict == NO_DIFFERENCE else pair.trained_verdict
    return f"{pair.first} against it: {shown} ({amount} apart, Holm-adjusted {p})"


def _disagreement(comparison: Comparison, pair: OrientedPair) -> Iterator[str]:
    """Name the classes in which either method of a pair is better, if there are such on both sides."""
    advantages = _advantages(comparison, pair)
    ahead = {name: value for name, value in advantages.items() if value > 0}
    behind = {name: -value for name, value in advantages.items() if value < 0}
    if not (ahead and behind):
        return
    text = (
        f"The classes disagree on {pair.first} and {pair.second}: {pair.second} is better in "
        f"{_by_class(comparison, behind)}, {pair.first} in {_by_class(comparison, ahead)}"
    )
    deciding = [name for name in ahead if pair.advantage > 0 and not _leads_without(comparison, pair, name)]
    if deciding:
        alone = "alone" if len(deciding) == 1 else "each"
        never = [name for name in deciding if _is_never_predicted(comparison, pair.second, name)]
        which = f", which {pair.second} never predicts" if never == deciding else ""
        text += f"; {pair.first}'s lead in the mean comes from {listed(deciding)} {alone}{which}"
    yield f"{text}."


def _advantages(comparison: Comparison, pair: OrientedPair) -> dict[str, float]:
    """Mean advantage of the first method by class."""
    metric = pair.pair.metric
    sign = 1 if METRICS[metric].higher_is_better else -1
    found = {}
    for name in comparison.scores.classes:
        means = {each.method: each.mean for each in comparison.summaries_of(metric, name)}
        if {pair.first, pair.second} <= means.keys():
            found[name] = sign * round(means[pair.first] - means[pair.second], DECIMALS)
    return found


def _by_class(comparison: Comparison, amounts: dict[str, float]) -> str:
    metric, unit = comparison.settings.metrics[0], comparison.scores.length_unit
    largest = sorted(amounts, key=lambda name: -amounts[name])[:_MOST_NAMED]
    texts = [f"{name} (by {with_unit(amounts[name], metric, unit)})" for name in largest]
    more = len(amounts) - len(largest)
    return f"{', '.join(texts)} and {more} more" if more else listed(texts)


def _leads_without(comparison: Comparison, pair: OrientedPair, name: str) -> bool:
    """Whether the first method would still lead if a class were left out of the mean."""
    rest = tuple(other for other in comparison.scores.averaged_classes if other != name)
    if name not in comparison.scores.averaged_classes or not rest:
        return True
    metric = comparison.settings.metrics[0]
    table = replace(comparison.scores, averaged=rest)
    means = {each.method: float(np.mean(each.case_means)) for each in method_scores(table, metric, None)}
    difference = round(means[pair.first] - means[pair.second], DECIMALS)
    return difference > 0 if METRICS[metric].higher_is_better else difference < 0


def _is_never_predicted(comparison: Comparison, method: str, name: str) -> bool:
    table = comparison.scores
    return not table.num_predicted[table.runs_of(method)][:, :, table.classes.index(name)].any()


def _small_classes(comparison: Comparison) -> Iterator[str]:
    """Name classes with a small share of the voxels, unless the call has chosen the classes."""
    table, settings = comparison.scores, comparison.settings
    averaged = table.averaged_classes
    if len(averaged) < 2 or settings.classes or settings.primary_classes:
        return
    sums = table.num_reference[:, [table.classes.index(name) for name in averaged]].sum(axis=0)
    shares = sums / max(1, sums.sum())
    small = [place for place in np.argsort(shares, kind="stable").tolist() if 0 < shares[place] < SMALL_SHARE]
    if small:
        texts = [f"{averaged[place]} ({100 * shares[place]:.1f} %)" for place in small[:_MOST_NAMED]]
        more = f" and {len(small) - _MOST_NAMED} more" if len(small) > _MOST_NAMED else ""
        words = ", ".join(texts) + more if more else listed(texts)
        has, counts = ("has", "counts") if len(small) == 1 else ("have", "count")
        yield (
            f"Of the reference voxels of these classes, {words} {has} few, and {counts} in the mean as much as any "
            "other; --classes and --primary choose the classes that decide."
        )

"""Rank the methods by three schemes, measure the stability of the ranks, and group methods that do not differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.results import ALL_CLASSES, BETTER, WORSE, Interval, RankResult, RankStability
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.bootstrap import bootstrap_means, random_stream
from nnunetv2.comparison.statistics.pairs import differences_of
from nnunetv2.comparison.statistics.trained_models import signed_rank_family, trained_verdict
from nnunetv2.comparison.statistics.trainings import MethodScores, method_scores

TAU_PERCENTILES = (2.5, 97.5)

Pair = frozenset[str]


def ranks(scores: ScoreTable, settings: CompareSettings) -> tuple[tuple[RankResult, ...], tuple[RankStability, ...]]:
    """Rank by the means over classes, in every metric that has a case that counts.

    A baseline is ignored: test-based ranks need the tests of all pairs.

    Source: Wiesenfarth et al., "Methods and open-source toolkit for analyzing and visualizing challenge results",
    Scientific Reports 11 (2021).
    """
    results: list[RankResult] = []
    stability: list[RankStability] = []
    for metric in settings.metrics:
        methods = method_scores(scores, metric, ALL_CLASSES)
        if methods[0].num_cases:
            of_metric, how_stable = _ranks_of(methods, metric, settings)
            results += of_metric
            stability.append(how_stable)
    return tuple(results), tuple(stability)


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis of (..., M), 1 for the highest score; ties share their mean rank."""
    better, equal = _compared(scores)
    return 1 + better + (equal - 1) / 2


def best_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis of (..., M), 1 for the highest score; ties take their best rank."""
    return 1 + _compared(scores)[0]


def schemes_agree(*schemes: np.ndarray) -> bool:
    """Whether no two methods swap order between the schemes, each (M,) ranks; a tie agrees with either order."""
    signs = np.array([np.sign(ranks[:, None] - ranks[None, :]) for ranks in schemes])
    return not np.any((signs.max(axis=0) > 0) & (signs.min(axis=0) < 0))


def _ranks_of(
    methods: list[MethodScores], metric: str, settings: CompareSettings
) -> tuple[list[RankResult], RankStability]:
    sign = 1 if METRICS[metric].higher_is_better else -1
    case_scores = sign * np.stack([method.case_means for method in methods], axis=1)
    means, resampled = bootstrap_means(
        case_scores, settings.num_resamples, random_stream(settings.seed, metric, ALL_CLASSES)
    )
    by_mean = mean_ranks(means)
    by_case = mean_ranks(case_scores).mean(axis=0)
    by_tests = mean_ranks(_significant_wins(methods, sign, settings.alpha))
    places = np.arange(1, len(methods) + 1)
    frequencies = (best_ranks(resampled)[:, :, None] == places).mean(axis=0)
    results = [
        RankResult(method.method, metric, *(float(scheme[place]) for scheme in (by_mean, by_case, by_tests)), shares)
        for place, (method, shares) in enumerate(zip(methods, map(tuple, frequencies.tolist()), strict=True))
    ]
    return results, RankStability(metric, _tau_interval(resampled, means), schemes_agree(by_mean, by_case, by_tests))


def _significant_wins(methods: list[MethodScores], sign: int, alpha: float) -> np.ndarray:
    """(M,) number of methods that each one significantly outperforms on these cases."""
    wins = np.zeros(len(methods))
    contests = list(combinations(range(len(methods)), 2))
    if not contests:
        return wins
    differences = sign * differences_of([(methods[first], methods[second]) for first, second in contests])
    _, adjusted = signed_rank_family(differences)
    for (first, second), column, p_holm in zip(contests, differences.T, adjusted, strict=True):
        outcome = trained_verdict(column, float(p_holm), alpha)
        wins[first] += outcome == BETTER
        wins[second] += outcome == WORSE
    return wins


def _tau_interval(resampled: np.ndarray, means: np.ndarray) -> Interval:
    """Interval of tau between bootstrap rankings and the ranking; NaN if undefined, as for a single method."""
    tau = kendall_tau(resampled, means)
    defined = tau[~np.isnan(tau)]
    if len(defined) == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.percentile(defined, TAU_PERCENTILES).tolist()
    return Interval(low, high)


def _compared(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of (..., M) scores, the number of higher ones and of equal ones, including itself."""
    own, other = scores[..., :, None], scores[..., None, :]
    return (other > own).sum(axis=-1), (other == own).sum(axis=-1)


def kendall_tau(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of (B, M) with the reference (M,), from -1 to 1; NaN if all entries are tied.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    first, second = np.triu_indices(len(reference), k=1)
    order = np.sign(scores[:, first] - scores[:, second])
    reference_order = np.sign(reference[first] - reference[second])
    num_untied = np.abs(order).sum(axis=1) * np.abs(reference_order).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return (order @ reference_order) / np.sqrt(num_untied)


def groups_without_difference(ranks: Mapping[str, float], differing: Collection[Pair]) -> list[tuple[str, ...]]:
    """Find the maximal ranges of ranks in which no two methods differ.

    A group contains all methods within its range, and methods of equal rank stay together. A bar from its lowest to
    its highest rank therefore never covers a method that differs from a member.

    Args:
        ranks: of each method.
        differing: pairs of methods that differ.

    Returns:
        Groups of at least two methods, none contained in another, sorted by rank; members are sorted by rank too, with
        ties in the order of `ranks`.

    Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), section 3.2.2; with
    tests of pairs as in Benavoli et al., "Should we really use post-hoc tests based on mean-ranks?", JMLR 17 (2016).
    """
    order = sorted(ranks, key=lambda method: ranks[method])
    places = [[method for method in order if ranks[method] == rank] for rank in sorted(set(ranks.values()))]
    groups: list[tuple[str, ...]] = []
    last_end = -1
    for start in range(len(places)):
        end = start
        while end < len(places) and not _any_differ(places[start : end + 1], differing):
            end += 1
        members = tuple(method for place in places[start:end] for method in place)
        if end > last_end and len(members) > 1:
            groups.append(members)
        last_end = max(last_end, end)
    return groups


def pairs_in_no_group(
    ranks: Mapping[str, float], differing: Collection[Pair], groups: Collection[tuple[str, ...]]
) -> list[tuple[str, str]]:
    """Pairs that do not differ but share no group, because a method between them differs from one of its neighbours."""
    order = sorted(ranks, key=lambda method: ranks[method])
    return [
        pair
        for pair in combinations(order, 2)
        if frozenset(pair) not in differing and not any(set(pair) <= set(group) for group in groups)
    ]


def _any_differ(places: list[list[str]], differing: Collection[Pair]) -> bool:
    methods = [method for place in places for method in place]
    return any(frozenset(pair) in differing for pair in combinations(methods, 2))

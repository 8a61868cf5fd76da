"""Groups of methods that are neighbours in rank and among which none is shown to differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

Pair = frozenset[str]


def groups_without_difference(ranks: Mapping[str, float], differing: Collection[Pair]) -> list[tuple[str, ...]]:
    """The longest ranges of ranks in which no two methods differ.

    A group has all methods of its range, those of equal rank together. So a bar from its lowest to its highest rank
    never covers a method that differs from one of the group.

    Args:
        ranks: of each method.
        differing: pairs of methods that are shown to differ.

    Returns:
        Groups of at least two methods, none within another, by rising rank; methods of a group likewise, those of equal
        rank in the order of `ranks`.

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
    """Pairs that are not shown to differ, but are apart: a method in between differs from one of its neighbours."""
    order = sorted(ranks, key=lambda method: ranks[method])
    return [
        pair
        for pair in combinations(order, 2)
        if frozenset(pair) not in differing and not any(set(pair) <= set(group) for group in groups)
    ]


def _any_differ(places: list[list[str]], differing: Collection[Pair]) -> bool:
    methods = [method for place in places for method in place]
    return any(frozenset(pair) in differing for pair in combinations(methods, 2))

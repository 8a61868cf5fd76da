"""Groups of neighbours in rank that are not shown to differ."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from nnunetv2.comparison.statistics.ranking import groups_without_difference, pairs_in_no_group


def pairs(*names: str) -> set[frozenset[str]]:
    return {frozenset(name) for name in names}


FOUR = {"d": 3.4, "b": 2.1, "a": 1.5, "c": 3.0}


def test_groups_by_hand():
    assert groups_without_difference(FOUR, pairs("ac", "ad", "bd")) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert groups_without_difference(FOUR, pairs("ad")) == [("a", "b", "c"), ("b", "c", "d")]
    assert groups_without_difference(FOUR, pairs("ab", "ac", "ad")) == [("b", "c", "d")]
    assert groups_without_difference(FOUR, set()) == [("a", "b", "c", "d")]
    assert groups_without_difference(FOUR, pairs("ab", "bc", "cd")) == []


def test_a_method_in_between_that_differs_parts_two_that_do_not():
    differing = pairs("ab", "bc", "bd", "cd")
    groups = groups_without_difference(FOUR, differing)
    assert groups == []
    assert pairs_in_no_group(FOUR, differing, groups) == [("a", "c"), ("a", "d")]


def test_methods_of_equal_rank_are_in_a_group_together_or_not_at_all():
    ranks = {"a": 2.0, "b": 2.0, "c": 2.5}
    assert groups_without_difference(ranks, pairs("ac")) == [("a", "b")]
    assert pairs_in_no_group(ranks, pairs("ac"), [("a", "b")]) == [("b", "c")]
    assert groups_without_difference(ranks, pairs("ab")) == []
    assert groups_without_difference(dict.fromkeys("cab", 2.0), set()) == [("c", "a", "b")]


def test_groups_are_all_that_are_longest_by_trying_every_range():
    rng = np.random.default_rng(0)
    for _ in range(150):
        names = "abcdefg"[: rng.integers(2, 8)]
        ranks = {name: float(rng.integers(1, 6)) for name in names}
        differing = {frozenset(pair) for pair in combinations(names, 2) if rng.random() < 0.35}
        ranges = [
            {name for name in names if low <= ranks[name] <= high}
            for low in ranks.values()
            for high in ranks.values()
            if low <= high
        ]
        alike = [each for each in ranges if not any(pair <= each for pair in differing)]
        expected = {frozenset(each) for each in alike if len(each) > 1 and not any(each < other for other in alike)}
        found = groups_without_difference(ranks, differing)
        assert {frozenset(group) for group in found} == expected
        assert len(found) == len(expected)
        assert all(sorted(group, key=lambda name: ranks[name]) == list(group) for group in found)
        covered = {frozenset(pair) for group in found for pair in combinations(group, 2)}
        apart = {frozenset(pair) for pair in pairs_in_no_group(ranks, differing, found)}
        assert [len(covered & differing), len(covered & apart), len(apart & differing)] == [0, 0, 0]
        assert covered | apart | differing == {frozenset(pair) for pair in combinations(names, 2)}

"""Classes that a method does not know, such as artery and vein in a program that finds vessels: they are not scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.errors import UsageError
from nnunetv2.utilities.message_parts import counted

logger = logging.getLogger(__name__)


def never_predicted(scores: ScoreTable) -> dict[str, frozenset[str]]:
    """Classes that a folder of predictions has in none of its files although references have them.

    Trained models know the classes of their dataset, so that a class they never predict is a failure. A method that
    predicts no class at all lacks none.
    """
    found = {}
    is_present = (scores.num_reference > 0).any(axis=0)
    for method in scores.methods:
        positions = scores.runs_of(method)
        if any(scores.runs[position].is_model for position in positions):
            continue
        is_predicted = (scores.num_predicted[positions] > 0).any(axis=(0, 1))
        missing = [name for name, gone in zip(scores.classes, is_present & ~is_predicted, strict=True) if gone]
        if missing and is_predicted.any():
            found[method] = frozenset(missing)
    return found


def without_lacking(
    scores: ScoreTable, declared: Mapping[str, frozenset[str]], primary: Sequence[str] = ()
) -> ScoreTable:
    """Remove the scores of classes that methods lack, and choose the classes over which means are taken.

    Args:
        declared: classes per method, with an empty entry for a method that lacks none; classes of other methods are
            found by `never_predicted`, with a warning.
        primary: classes of the means; empty for those that all methods have.

    Raises:
        UsageError: no class remains to compare at least two methods in.
    """
    lacks = dict(declared)
    for method, names in never_predicted(scores).items():
        if method in declared:
            continue
        lacks[method] = names
        listed = [name for name in scores.classes if name in names]
        logger.warning(
            "%s predicts %s in none of its %s, and counts as a method that lacks %s. If it knows other classes than "
            "that, say so: --lacks %s:CLASS,CLASS, or --lacks %s: if it lacks none, which scores them as missed",
            method,
            " and ".join(listed),
            counted(len(scores.cases), "file"),
            "it" if len(listed) == 1 else "them",
            method,
            method,
        )
    lacks = {method: names for method, names in lacks.items() if names}
    if not lacks and not primary:
        return scores
    table = masked(scores, lacks)
    common = tuple(name for name in scores.classes if all(name not in names for names in lacks.values()))
    table = replace(table, averaged=tuple(primary) or common)
    _require_two_methods(table)
    return table


def masked(scores: ScoreTable, lacks: Mapping[str, frozenset[str]]) -> ScoreTable:
    """Remove the scores of the classes that each method lacks."""
    table = replace(scores, lacks=lacks)
    has_class = table.has_class
    return replace(
        table,
        values={name: np.where(has_class[:, None, :], each, np.nan) for name, each in scores.values.items()},
        num_worst_distances={name: each * has_class for name, each in scores.num_worst_distances.items()},
    )


def _require_two_methods(table: ScoreTable) -> None:
    for name in table.classes:
        if not table.methods_of(name):
            raise UsageError(f"No method has the class {name}; leave it out with --classes")
    if not table.averaged:
        raise UsageError(
            "There is no class that all methods have, so none can decide; name the classes that do with --primary, and "
            "methods without them are left out of the mean"
        )
    if len(table.methods_of(None)) < 2:
        names = " and ".join(table.averaged)
        raise UsageError(f"Fewer than two methods have {names}, which --primary names; choose classes that two have")

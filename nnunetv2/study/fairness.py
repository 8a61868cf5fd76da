"""What would make the models of a study not comparable, as far as it is known before they are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunetv2.comparison.cases import ALLOW_ALL, PREFIX
from nnunetv2.comparison.comparability import ITEM_NAMES, in_words, protocol_equalities
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.protocol import ITEMS
from nnunetv2.comparison.results import DIFFERS
from nnunetv2.errors import UsageError
from nnunetv2.study.planned_protocol import KNOWN_ITEMS

if TYPE_CHECKING:
    from nnunetv2.study.methods import Method

_ADVICE = {
    "iterations": "set budget.num_epochs and budget.num_iterations_per_epoch",
    "precision": "set budget.precision",
}


def require_known_items(allow: Sequence[str]) -> None:
    """Refuses what no comparison knows as something that may differ.

    Raises:
        UsageError: accordingly.
    """
    for item in allow:
        if item not in (*ITEM_NAMES, ALLOW_ALL):
            raise UsageError(f"compare.allow has {item!r}; accepted are {', '.join(ITEM_NAMES)}, and {ALLOW_ALL}")


def require_fair(methods: Sequence[Method], allow: Sequence[str]) -> None:
    """Refuses methods that the comparison would refuse once they are trained.

    Raises:
        NotComparableError: with one line for each inequality.
    """
    if found := inequalities(methods, allow):
        raise NotComparableError("\n".join(found))


def inequalities(methods: Sequence[Method], allow: Sequence[str]) -> list[str]:
    """One line for each item in which methods differ without that being allowed."""
    protocols = {method.name: [method.protocol] for method in methods}
    items = [item for item in ITEMS if item.name in KNOWN_ITEMS and not {item.name, ALLOW_ALL} & set(allow)]
    lines = []
    for found in protocol_equalities(protocols, items):
        if found.state == DIFFERS:
            advice = _ADVICE.get(found.item, "change the models")
            lines.append(f"{PREFIX}{found.item}: {in_words(found)}; {advice}, or add {found.item} to compare.allow")
    return lines

"""What would make the models of a study not comparable, as far as it is known before they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnunetv2.comparison.cases import ALLOW_ALL, PREFIX
from nnunetv2.comparison.comparability import ITEM_NAMES, in_words
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.results import DIFFERS, Equality
from nnunetv2.errors import UsageError

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
    if found := inequalities({method.name: method.protocol for method in methods}, allow):
        raise NotComparableError("\n".join(found))


def inequalities(protocols: Mapping[str, Mapping[str, str]], allow: Sequence[str]) -> list[str]:
    """One line for each item in which methods differ without that being allowed.

    Args:
        protocols: items of a comparison, of each method.
    """
    lines = []
    for item in next(iter(protocols.values()), {}):
        values = {name: protocol[item] for name, protocol in protocols.items()}
        if len(set(values.values())) > 1 and not {item, ALLOW_ALL} & set(allow):
            advice = _ADVICE.get(item, "change the models")
            words = in_words(Equality(item, "", DIFFERS, values))
            lines.append(f"{PREFIX}{item}: {words}; {advice}, or add {item} to compare.allow")
    return lines

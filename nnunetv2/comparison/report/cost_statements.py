"""Sentences about the costs of the methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nnunetv2.comparison.report.formatting import amount, listed
from nnunetv2.comparison.report.leader import means_of
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import Comparison, MethodCost


@dataclass(frozen=True)
class CostKind:
    """One kind of cost."""

    name: str
    unit: str
    value: Callable[[MethodCost], float | None]

    @property
    def title(self) -> str:
        """Name and unit, for axes and table columns."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def _gibibytes(mebibytes: float | None) -> float | None:
    return None if mebibytes is None else mebibytes / 1024


COST_KINDS = (
    CostKind("Computation to predict one patch", "GFLOPs", lambda cost: cost.gflops_per_patch),
    CostKind("Parameters", "", lambda cost: cost.num_parameters),
    CostKind("Time to predict one case", "s", lambda cost: cost.seconds_per_case),
    CostKind("Training time of all folds", "hours", lambda cost: cost.gpu_hours),
    CostKind("Peak GPU memory of training", "GiB", lambda cost: _gibibytes(cost.peak_memory_mib)),
)


def cost_statements(comparison: Comparison) -> Iterator[Statement]:
    """Yield one sentence per kind of cost known for any method, and one that lists the unknown kinds.

    Yields nothing if all methods are folders of predictions, whose costs cannot be known.
    """
    best = means_of(comparison)[0].method
    unknown = []
    for kind in COST_KINDS:
        known = {cost.method: value for cost in comparison.costs if (value := kind.value(cost)) is not None}
        if known:
            yield Statement(_sentence(kind, known, best, [cost.method for cost in comparison.costs]))
        else:
            unknown.append(kind.name[0].lower() + kind.name[1:] if not kind.name.startswith("GPU") else kind.name)
    if unknown and any(run.is_model for run in comparison.scores.runs):
        yield Statement(f"Not known of any method: {listed(unknown)}.")


def _sentence(kind: CostKind, known: dict[str, float], best: str, methods: list[str]) -> str:
    def priced(method: str) -> str:
        unit = f" {kind.unit}" if kind.unit else ""
        return f"{amount(known[method])}{unit} for {method}"

    least = min(known, key=lambda method: known[method])
    most = max(known, key=lambda method: known[method])
    parts = [f"{priced(best)} (best by score{_ratio(known, best, least)})"] if best in known else []
    # Compared as printed: a difference that rounding hides would read as a contradiction.
    if amount(known[least]) != amount(known[most]):
        parts += [f"{word} {priced(name)}" for word, name in (("least", least), ("most", most)) if name != best]
    elif len(known) > 1:
        parts = [
            f"{amount(known[least])} {kind.unit}".strip()
            + f" for {listed([each for each in methods if each in known])}"
        ]
    elif not parts:
        parts = [priced(least)]
    missing = [method for method in methods if method not in known]
    return f"{kind.name}: {', '.join(parts)}{f'; not known of {listed(missing)}' if missing else ''}."


def _ratio(known: dict[str, float], best: str, least: str) -> str:
    if len(known) < 2 or known[least] <= 0:
        return ""
    if known[best] == known[least]:
        return ", takes the least"
    return f", {known[best] / known[least]:.2g} times the least"

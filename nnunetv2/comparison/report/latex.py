"""LaTeX table of the methods for a paper, with booktabs."""

from __future__ import annotations

import re

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.report.formatting import coverage, score, unit_of
from nnunetv2.comparison.report.leader import OrientedPair, means_of
from nnunetv2.comparison.report.score_tables import is_best
from nnunetv2.comparison.results import WORSE, Comparison, MethodSummary
from nnunetv2.utilities.message_parts import counted

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "−": "$-$", "–": "--", "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip
_UNDERSCORES = re.compile(r"(?:\\_)+(?=.)")
_ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$"}


def latex_table(comparison: Comparison) -> str:
    """Render all methods and metrics (means over classes) as a table environment; needs `\\usepackage{booktabs}`.

    Best means are bold; those not significantly worse than the best are underlined.
    """
    metrics = comparison.settings.metrics
    heads = " & ".join(_head(metric, comparison.scores.length_unit) for metric in metrics)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_caption(comparison)}}}",
        rf"  \begin{{tabular}}{{l{'c' * len(metrics)}}}",
        r"    \toprule",
        rf"    Method & {heads} \\",
        r"    \midrule",
        *(f"    {_row(comparison, method)} \\\\" for method in comparison.scores.methods),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Escape text for LaTeX, allowing line breaks after underscores."""
    escapes = "".join(_ESCAPES.get(character, character) for character in text)
    return _UNDERSCORES.sub(lambda found: found.group() + r"\allowbreak{}", escapes)


def _head(metric: str, length_unit: str) -> str:
    unit = unit_of(metric, length_unit)
    return f"{escaped(f'{metric} ({unit})' if unit else metric)} {_ARROWS[METRICS[metric].higher_is_better]}"


def _caption(comparison: Comparison) -> str:
    summaries = comparison.summaries_of(comparison.settings.metrics[0])
    num_cases = summaries[0].num_cases if summaries else 0
    averaged = comparison.scores.averaged
    classes = counted(len(comparison.scores.classes), "class", "classes") if averaged is None else ", ".join(averaged)
    text = (
        f"{comparison.dataset}: mean over {num_cases} cases [{coverage(comparison.settings)}], each the mean over its "
        f"{classes} and over the trainings of the method."
    )
    rest = (
        r" \textbf{Bold}: best mean; \underline{underlined}: not shown to be worse than that (Wilcoxon signed-rank, "
        rf"Holm, $\alpha = {comparison.settings.alpha:g}$)."
    )
    if comparison.settings.baseline is not None:
        rest += escaped(f" Tested against {comparison.settings.baseline} alone.")
    broken = comparison.comparability.broken
    warning = f" Not comparable in: {', '.join(each.item for each in broken)}." if broken else ""
    return escaped(text) + rest + escaped(warning)


def _row(comparison: Comparison, method: str) -> str:
    cells = [escaped(method)]
    for metric in comparison.settings.metrics:
        summaries = comparison.summaries_of(metric)
        cells += [_cell(comparison, each, summaries) for each in summaries if each.method == method] or ["--"]
    return " & ".join(cells)


def _cell(comparison: Comparison, summary: MethodSummary, others: list[MethodSummary]) -> str:
    mean = escaped(score(summary.mean, summary.metric))
    if is_best(summary, others):
        mean = rf"\textbf{{{mean}}}"
    elif _is_not_worse_than_best(comparison, summary):
        mean = rf"\underline{{{mean}}}"
    ends = (escaped(score(end, summary.metric)) for end in (summary.interval.low, summary.interval.high))
    return rf"{mean} {{\scriptsize [{', '.join(ends)}]}}"


def _is_not_worse_than_best(comparison: Comparison, summary: MethodSummary) -> bool:
    """Whether the test finds it not worse than the best; False if the pair was not tested or no case counts."""
    if summary.num_cases == 0:
        return False
    best = means_of(comparison, summary.metric)[0].method
    pairs = [
        pair for pair in comparison.pairs_of(summary.metric) if {pair.first, pair.second} == {best, summary.method}
    ]
    return any(OrientedPair(summary.method, best, pair).trained_verdict != WORSE for pair in pairs)

"""The files for programs, spreadsheets and papers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2.comparison.report.csv_files import csv_texts
from nnunetv2.comparison.report.json_files import json_texts, plain
from nnunetv2.comparison.report.latex import escaped as latex_escaped
from nnunetv2.comparison.report.latex import latex_table
from nnunetv2.comparison.report.markdown import escaped as markdown_escaped
from nnunetv2.comparison.report.markdown import markdown_report
from nnunetv2.comparison.results import MIXED, NO_DIFFERENCE, NOT_TESTABLE, WORSE, Comparison, Interval
from tests.comparison.report.planted import CLASSES, METHODS, SCRIPT_CASE, iterations_differ, planted


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def tables(five: Comparison) -> dict[str, list[dict[str, str]]]:
    return {name: rows_of(text) for name, text in csv_texts(five).items()}


def test_per_case_has_every_score(five: Comparison, tables: dict[str, list[dict[str, str]]]) -> None:
    rows = tables["per_case.csv"]
    assert len(rows) == 15 * 30 * 3 * 4
    assert list(rows[0]) == [
        "dataset",
        "method",
        "seed",
        "run",
        "fold",
        "case",
        "class",
        "metric",
        "value",
        "n_ref",
        "n_pred",
    ]
    table = five.scores
    for row in rows[::97]:
        run = next(
            i for i, each in enumerate(table.runs) if (each.method, str(each.seed)) == (row["method"], row["seed"])
        )
        case, name = table.cases.index(row["case"]), table.classes.index(row["class"])
        value = table.values[row["metric"]][run, case, name]
        assert (np.isnan(value) and row["value"] == "") or float(row["value"]) == value
        assert int(row["n_ref"]) == table.num_reference[case, name]
        assert int(row["n_pred"]) == table.num_predicted[run, case, name]
        assert row["fold"] == table.runs[run].fold_of[row["case"]]
    assert any(row["value"] == "" for row in rows)


def test_tests_have_the_numbers_in_full(five: Comparison, tables: dict[str, list[dict[str, str]]]) -> None:
    assert len(tables["tests.csv"]) == len(five.pairs)
    for row, pair in zip(tables["tests.csv"], five.pairs, strict=True):
        assert (row["first"], row["second"], row["metric"]) == (pair.first, pair.second, pair.metric)
        assert float(row["mean_difference"]) == pair.mean_difference
        assert float(row["hodges_lehmann"]) == pair.trained.hodges_lehmann
        assert float(row["ci_high"]) == pair.trained.interval.high
        assert float(row["p_holm"]) == pair.trained.p_holm
        assert float(row["methods_p"]) == pair.methods.p
        assert (row["verdict"], row["methods_verdict"]) == (pair.trained.verdict, pair.methods.verdict)


def test_non_inferiority_has_a_column_for_each_way(smallest: Comparison) -> None:
    first = smallest.pairs_of("Dice")[0]
    asked = replace(first, non_inferior=(True, False))
    comparison = replace(smallest, pairs=tuple(asked if pair is first else pair for pair in smallest.pairs))
    rows = rows_of(csv_texts(comparison)["tests.csv"])
    assert (rows[0]["non_inferior_first"], rows[0]["non_inferior_second"]) == ("yes", "no")
    assert (rows[1]["non_inferior_first"], rows[1]["non_inferior_second"]) == ("", "")
    assert json.loads(json_texts(comparison)["comparison.json"])["pairs"][0]["non_inferior"] == [True, False]


def test_other_tables(five: Comparison, tables: dict[str, list[dict[str, str]]]) -> None:
    assert float(tables["summary.csv"][0]["mean"]) == five.summaries[0].mean
    assert tables["summary.csv"][0]["class"] == "(mean)"
    assert float(tables["ranks.csv"][0]["share_of_rank_1"]) == five.ranks[0].frequencies[0]
    assert tables["compute.csv"][3] == dict.fromkeys(tables["compute.csv"][3], "") | {"method": METHODS[3]}
    assert tables["detection.csv"][0]["false_positive_rate"] == ""


def test_volumes_have_a_row_per_class_and_method(five: Comparison, tables: dict[str, list[dict[str, str]]]) -> None:
    rows = tables["volumes.csv"]
    assert [(row["class"], row["method"]) for row in rows] == [
        (name, name_) for name in CLASSES for name_ in METHODS[:5]
    ]
    table = five.scores
    counts = table.num_reference[:, 2] > 0
    predicted = table.num_predicted[table.runs_of(METHODS[1])].mean(axis=0)
    differences = 0.5 * (predicted - table.num_reference)[counts, 2]
    row = rows[11]
    assert (row["n"], row["unit"]) == ("27", "mm2")
    assert float(row["bias"]) == pytest.approx(differences.mean(), rel=1e-12)
    half = 1.96 * differences.std(ddof=1)
    limits = (differences.mean() - half, differences.mean() + half)
    assert (float(row["limit_low"]), float(row["limit_high"])) == pytest.approx(limits, rel=1e-12)


def test_not_testable_is_empty_with_its_reason(smallest: Comparison) -> None:
    row = rows_of(csv_texts(smallest)["tests.csv"])[0]
    assert (row["methods_p"], row["methods_ci_low"], row["methods_verdict"]) == ("", "", "not testable")
    assert row["methods_reason"].startswith(METHODS[0])


@pytest.mark.parametrize("name", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1"])
def test_names_are_no_formulas_in_spreadsheets(smallest: Comparison, name: str) -> None:
    text = csv_texts(replace(smallest, dataset=name))["per_case.csv"]
    assert rows_of(text)[0]["dataset"] == f"'{name}"


def test_negative_numbers_stay_numbers(tables: dict[str, list[dict[str, str]]]) -> None:
    differences = [float(row["mean_difference"]) for row in tables["tests.csv"] if row["metric"] == "HD95"]
    assert min(differences) < 0


def test_json_holds_everything_but_single_cases(five: Comparison) -> None:
    texts = json_texts(five)
    content = json.loads(texts["comparison.json"], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["pairs"][0]["trained"]["p_holm"] == five.pairs[0].trained.p_holm
    assert content["curves"][0]["pseudo_dice"][7] is None
    assert content["runs"][1] == {"method": METHODS[0], "run": 1, "seed": 1, "folds": ["0", "1"]}
    assert set(content["versions"]) == {"nnunetv2", "numpy", "scipy", "scikit-image", "monai"}
    assert "values" not in content
    assert json.loads(texts["comparability.json"])["is_comparable"] is True
    broken = planted(2, 1, 3, metrics=("Dice",), equalities=(iterations_differ("a", "b"),))
    sheet = json.loads(json_texts(broken)["comparability.json"])
    assert (sheet["is_comparable"], sheet["broken"], sheet["allowed"]) == (False, ["iterations"], ["iterations"])
    assert sheet["equalities"][0]["values"] == {"a": "250000", "b": "25000"}


def test_no_path_of_the_machine_is_told(five: Comparison) -> None:
    for text in [*csv_texts(five).values(), *json_texts(five).values(), markdown_report(five), latex_table(five)]:
        assert "/machine" not in text


def test_plain_turns_numpy_and_nan_into_json() -> None:
    assert plain((np.float64(1.5), np.int64(2), float("inf"), Interval(float("nan"), 1.0))) == [
        1.5,
        2,
        None,
        {"low": None, "high": 1.0},
    ]


def with_first_verdict(comparison: Comparison, verdict: str) -> Comparison:
    first = comparison.pairs_of("Dice")[0]
    changed = replace(first, trained=replace(first.trained, verdict=verdict))
    return replace(comparison, pairs=tuple(changed if pair is first else pair for pair in comparison.pairs))


@pytest.mark.parametrize("verdict", [MIXED, NOT_TESTABLE, WORSE])
def test_latex_underlines_what_is_not_shown_to_be_worse_than_the_best(five: Comparison, verdict: str) -> None:
    """The first of the pair is the best, so its verdict `worse` would speak for the second."""
    text = latex_table(with_first_verdict(five, verdict))
    assert r"\underline{underlined}: not shown to be worse than that (Wilcoxon" in text
    assert r"\underline{0.765}" in text
    assert text.count(r"\underline") == 2


def test_latex_says_which_tests_there_were_with_a_baseline(five: Comparison) -> None:
    chosen = replace(five, settings=replace(five.settings, baseline=METHODS[4]))
    assert r" Tested against EoMT \& friends \$x\_\allowbreak{}1\$ 100 \% alone." in latex_table(chosen)
    assert "Tested against" not in latex_table(five)


def test_latex_marks_the_best_and_those_not_told_from_it(five: Comparison) -> None:
    comparison = with_first_verdict(five, NO_DIFFERENCE)
    rows = [line for line in latex_table(comparison).splitlines() if line.count("&") == 4]
    columns = [row.split(" & ") for row in rows[1:4]]
    assert columns[0][1].startswith(r"\textbf{0.781} {\scriptsize [0.757, 0.805]}")
    assert columns[1][1].startswith(r"\underline{0.765}")
    assert columns[2][1].startswith("0.7")
    assert all(cell.startswith(r"\textbf") for cell in (columns[0][3], columns[0][4].strip()))  # distances


def test_latex_is_escaped_and_balanced(five: Comparison) -> None:
    text = latex_table(five)
    assert latex_escaped('a_b__c %$&#{}~^\\<"') == (
        r"a\_\allowbreak{}b\_\_\allowbreak{}c \%\$\&\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
        r"\textless{}\textquotedbl{}"
    )
    assert r"EoMT \& friends \$x\_\allowbreak{}1\$ 100 \%" in text
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert text.isascii()
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1


def test_latex_warns_of_what_is_not_comparable() -> None:
    broken = planted(2, 1, 3, metrics=("Dice",), equalities=(iterations_differ("a", "b"),))
    assert "Not comparable in: iterations." in latex_table(broken)


def test_markdown_is_escaped(five: Comparison) -> None:
    assert markdown_escaped("<b>a|b</b> `c` __d__ [e](f) *g*\nh") == (
        r"&lt;b&gt;a\|b&lt;/b&gt; \`c\` \_\_d\_\_ \[e\](f) \*g\* h"
    )
    case = five.scores.cases.index(SCRIPT_CASE)
    counts = five.scores.num_predicted.copy()
    counts[:, case] = 0
    text = markdown_report(replace(five, scores=replace(five.scores, num_predicted=counts)))
    assert "<script" not in text
    assert "<b>" not in text


def test_markdown_has_the_verdict_the_banner_and_even_tables() -> None:
    broken = planted(2, 1, 12, equalities=(iterations_differ("a", "b"),))
    text = markdown_report(broken)
    assert "> **NOT COMPARABLE: iterations**" in text
    assert "The methods: not testable." in text
    lines = text.splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        if above.startswith("|") and line.startswith("|"):
            assert above.replace(r"\|", "").count("|") == line.replace(r"\|", "").count("|")

"""Every number of the tables is that of the comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnunetv2.comparison.report.failures import failure_tables
from nnunetv2.comparison.report.markdown import markdown_report
from nnunetv2.comparison.report.pair_tables import MOST_ROWS, pair_tables
from nnunetv2.comparison.report.score_tables import class_tables, methods_table
from nnunetv2.comparison.report.sheet_tables import (
    comparability_table,
    compute_table,
    detection_table,
    rank_tables,
    values_of,
)
from nnunetv2.comparison.results import MIXED, Comparison
from tests.comparison.report.planted import CLASSES, METHODS, iterations_differ, planted


def number(text: str) -> float:
    return float("nan") if text == "–" else float(text.replace("−", "-").removeprefix("+").removeprefix("< "))


def ends(text: str) -> tuple[float, float]:
    low, high = text.split(" to ")
    return number(low), number(high)


def close(text: str, value: float, digits: int) -> bool:
    return abs(number(text) - value) <= 0.5 * 10.0**-digits + 1e-12


def test_pair_table_has_the_numbers_of_the_pairs(five: Comparison) -> None:
    tables = pair_tables(five)
    assert [table.title for table in tables[:4]] == ["Dice ↑", "NSD ↑", "HD95 (mm) ↓", "ASSD (mm) ↓"]
    for metric, digits, table in zip(five.settings.metrics, (3, 3, 2, 2), tables, strict=False):
        pairs = five.pairs_of(metric)
        assert len(table.rows) == len(pairs) == 10
        for row, pair in zip(table.rows, pairs, strict=True):
            names, cases, means, differences, effect, trained, verdict, methods, methods_verdict = row
            assert names.methods == (pair.first, pair.second)
            assert cases.lines == (str(pair.num_cases),)
            expected = [*pair.means, pair.mean_difference, pair.median_difference, pair.trained.hodges_lehmann]
            shown = [*means.lines, *differences.lines]
            assert all(close(text, value, digits) for text, value in zip(shown, expected, strict=True))
            assert close(effect.lines[0], pair.trained.rank_biserial, 2)
            for cell, test in ((trained, pair.trained), (methods, pair.methods)):
                low, high = ends(cell.lines[0])
                assert abs(low - test.interval.low) <= 0.5 * 10.0**-digits + 1e-12
                assert abs(high - test.interval.high) <= 0.5 * 10.0**-digits + 1e-12
                for text, p in zip(cell.lines[1:], (test.p, test.p_holm), strict=True):
                    assert (p < 0.001) if text == "< 0.001" else close(text, p, 3)
            assert verdict.lines[0] == pair.trained.verdict
            assert methods_verdict.lines == (pair.methods.verdict, "seeds 3, 3")


def test_pair_table_says_what_its_verdicts_and_intervals_are(five: Comparison) -> None:
    first = five.pairs_of("NSD")[0]
    mixed = replace(first, trained=replace(first.trained, verdict=MIXED))
    comparison = replace(five, pairs=tuple(mixed if pair is first else pair for pair in five.pairs))
    dice, nsd, *others = pair_tables(comparison)
    assert "of each pair alone and not adjusted" in dice.note
    assert nsd.note.startswith("Mixed: trained models differ, but one is better by the ranks of the differences")
    assert (nsd.rows[0][6].lines, nsd.rows[0][6].mood) == (("mixed",), "mixed")
    assert all("Mixed" not in table.note and "alone" not in table.note for table in (*others, *pair_tables(five)[1:]))


def test_pair_table_answers_the_margin_both_ways() -> None:
    comparison = planted(3, 1, 25, ("a",), metrics=("Dice", "NSD"), gap=0.02, is_known=False, margin=0.04)
    a, b, c = METHODS[:3]
    dice, nsd = pair_tables(comparison)
    assert dice.note.endswith(
        f"Non-inferiority of these trained models with a margin of 0.04 in Dice is shown for {a} against {b}; "
        f"{b} against {a}; {a} against {c}; {b} against {c}; {c} against {b}, and for no other."
    )
    assert "Non-inferiority" not in nsd.note
    none = replace(comparison, pairs=tuple(replace(pair, non_inferior=(False, False)) for pair in comparison.pairs))
    assert pair_tables(none)[0].note.endswith("is shown for none.")
    everything = replace(comparison, pairs=tuple(replace(pair, non_inferior=(True, True)) for pair in comparison.pairs))
    assert pair_tables(everything)[0].note.endswith(f"{c} against {b}.")
    to_baseline = replace(everything, settings=replace(comparison.settings, baseline=b))
    assert pair_tables(to_baseline)[0].note.endswith(f"is shown for {a} against {b}; {c} against {b}.")


def test_pair_tables_of_classes_follow_unless_they_are_many(five: Comparison) -> None:
    assert [table.title for table in pair_tables(five)[4:]] == [f"Dice ↑, class {name}" for name in CLASSES]
    many = planted(4, 1, 5, tuple(f"class {number}" for number in range(MOST_ROWS // 6 + 1)), metrics=("Dice",))
    assert len(pair_tables(many)) == 1


def test_untested_methods_are_a_dash(smallest: Comparison) -> None:
    row = pair_tables(smallest)[0].rows[0]
    assert row[7].lines == ("–",)
    assert row[8].lines == ("not testable", "seeds 1, 1")
    assert row[8].mood == "open"


def test_methods_table_marks_the_best_by_the_direction_of_the_metric(five: Comparison) -> None:
    table = methods_table(five)
    for column, metric in enumerate(five.settings.metrics, start=1):
        means = [summary.mean for summary in five.summaries_of(metric)]
        best = int(np.argmin(means) if metric in ("HD95", "ASSD") else np.argmax(means))
        assert [row[column].is_best for row in table.rows] == [position == best for position in range(5)]
        assert all(close(row[column].lines[0], mean, 2) for row, mean in zip(table.rows, means, strict=True))


def test_nan_is_never_best(five: Comparison) -> None:
    worst = five.summaries_of("Dice")[-1]
    nan = replace(worst, mean=float("nan"))
    only_nan = replace(five, summaries=tuple(nan if each is worst else each for each in five.summaries))
    column = [row[1] for row in methods_table(only_nan).rows]
    assert [cell.is_best for cell in column] == [True, False, False, False, False]
    assert column[-1].lines[0] == "–"


def test_class_tables_have_a_row_per_class(five: Comparison, smallest: Comparison) -> None:
    tables = class_tables(five)
    assert len(tables) == 4
    assert [row[0].lines[0] for row in tables[0].rows] == list(CLASSES)
    assert [row[1].lines[0] for row in tables[0].rows] == ["30", "30", "27"]
    assert class_tables(smallest) == []


def test_rank_and_detection_tables(five: Comparison) -> None:
    ranks = rank_tables(five)
    assert ranks[0].rows[0][1].lines == ("1.0",)
    assert "do not agree" in ranks[1].note
    detection = detection_table(five)
    assert len(detection.rows) == 15
    assert [cell.lines[0] for cell in detection.rows[5][2:]] == ["4", "25 %", "12.5", "26", "10 %"]


def test_unknown_costs_are_dashes_beside_known_ones(five: Comparison, smallest: Comparison) -> None:
    row = compute_table(five).rows[3]
    assert all(set(cell.lines) == {"–"} for cell in row[1:])
    nothing = compute_table(smallest)
    assert (nothing.rows, nothing.note) == ((), "Nothing is known of the costs of any method.")
    text = markdown_report(smallest)
    assert "## Costs\n\nNothing is known of the costs of any method.\n" in text
    assert "GFLOPs per patch" not in text
    assert "GFLOPs per patch" in markdown_report(five)


def test_values_of_an_equality_are_grouped() -> None:
    assert values_of(iterations_differ("a", "b", "c", "d")) == ["25000: c; d", "250000: a; b"]
    assert values_of(iterations_differ(*(f"{number:02d}" for number in range(16))))[1].endswith("; 05; and 2 more")


def test_comparability_table_states(five: Comparison) -> None:
    rows = comparability_table(five).rows
    assert [(row[0].lines[0], row[2].lines[0], row[2].mood) for row in rows] == [
        ("splits", "equal", "good"),
        ("iterations", "equal", "good"),
        ("augmentation", "not recorded", "open"),
    ]
    assert rows[0][3].lines == ("3f2a9c01",)


def test_failure_list_names_empty_predictions_and_worst_distances(five: Comparison) -> None:
    empty, worst = failure_tables(five)
    assert len(empty.rows) == 1
    case, name, runs, methods = empty.rows[0]
    assert (case.lines[0], name.lines[0], methods.methods) == (five.scores.cases[-1], CLASSES[0], (METHODS[4],))
    assert runs.lines[0] == "1 of 15"
    assert worst.title == "Worst HD95"
    shown = [number(row[3].lines[0]) for row in worst.rows]
    assert shown == sorted(shown, reverse=True)
    by_method = np.stack([five.scores.values["HD95"][five.scores.runs_of(name)].mean(axis=0) for name in METHODS[:5]])
    assert abs(shown[0] - np.nanmax(by_method)) <= 0.005 + 1e-12

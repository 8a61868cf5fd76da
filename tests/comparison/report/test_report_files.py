"""The whole report: the same every time, self-contained, and nothing half-written."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nnunetv2.comparison.report import write_report
from nnunetv2.comparison.report.case_pictures import CasePicture, Panel
from nnunetv2.comparison.report.figures import gallery
from nnunetv2.comparison.report.figures.cost_panels import pareto_front
from nnunetv2.comparison.report.report_files import report_texts
from nnunetv2.comparison.results import Comparison
from tests.comparison.report.planted import METHODS, SCRIPT_CASE, iterations_differ, planted

FILES = {
    "per_case.csv", "summary.csv", "tests.csv", "ranks.csv", "compute.csv", "detection.csv", "volumes.csv",
    "comparability.json", "comparison.json", "report.md", "table.tex", "report.html",
}  # fmt: skip
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
PICTURE = CasePicture(
    SCRIPT_CASE, "why <i>", "slice 1 of 2", PIXEL, (1, 1),
    (Panel("Image", None), Panel("Reference", PIXEL), Panel(METHODS[0], PIXEL, "Dice 0.5", is_method=True)),
    ((0, "<b>nucleus</b>"),),
)  # fmt: skip


class Page(HTMLParser):
    """Tags, what they load, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def other_order(comparison: Comparison) -> Comparison:
    """The same comparison with every mapping filled from its other end."""

    def turned(mapping: object) -> dict:
        return dict(reversed(list(mapping.items())))

    table = comparison.scores
    runs = tuple(replace(run, predictions=turned(run.predictions), fold_of=turned(run.fold_of)) for run in table.runs)
    scores = replace(
        table, runs=runs, values=turned(table.values), num_worst_distances=turned(table.num_worst_distances)
    )
    equalities = tuple(replace(each, values=turned(each.values)) for each in comparison.comparability.equalities)
    sheet = replace(comparison.comparability, equalities=equalities)
    return replace(comparison, scores=scores, comparability=sheet)


@pytest.fixture(scope="module")
def broken() -> Comparison:
    names = [f"{method} (seed {seed})" for method in METHODS[:3] for seed in range(3)]
    return planted(3, 3, 12, metrics=("Dice", "HD95"), equalities=(iterations_differ(*names),))


@pytest.fixture(scope="module")
def page(broken: Comparison) -> str:
    return report_texts(broken, [PICTURE])["report.html"]


@pytest.mark.slow
def test_the_same_comparison_gives_the_same_bytes(broken: Comparison, tmp_path: Path) -> None:
    for name, comparison in (("a", broken), ("b", other_order(broken))):
        assert write_report(comparison, tmp_path / name / "new", [PICTURE]) == tmp_path / name / "new" / "report.html"
    written = {path.name: path.read_bytes() for path in (tmp_path / "a" / "new").iterdir()}
    assert set(written) == FILES
    for name, content in written.items():
        assert (tmp_path / "b" / "new" / name).read_bytes() == content, name


@pytest.mark.slow
def test_page_loads_nothing_and_is_small(page: str) -> None:
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"https?:|//[a-z]|@import|javascript:", page, re.IGNORECASE)
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "embed"} & set(parsed.tags)
    assert all(value.startswith(("data:image/", "#")) for value in parsed.loads)
    assert not parsed.open
    assert "/machine" not in page


@pytest.mark.slow
def test_names_are_escaped_in_the_page(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    text = Page(page).text
    assert SCRIPT_CASE in text
    assert "<b>nucleus</b>" in text
    assert "why <i>" in text


@pytest.mark.slow
def test_sections_come_in_the_order_of_a_reader(page: str) -> None:
    titles = (
        "has the highest mean Dice", "What cannot be said", 'role="alert"', "<h2>Methods</h2>", "<h2>Figures</h2>",
        "Paired differences in Dice", "Dice per class", "Rank stability in Dice", "Significance map in Dice",
        "Critical differences in Dice", "Dice against cost", "Learning curves", "The two best methods",
        "Predicted and reference volumes", "<h2>Worst cases</h2>", "<h2>Failures</h2>",
        "<h2>Tests of pairs</h2>", "<h2>Ranks</h2>", "<h2>Detection</h2>", "<h2>Costs</h2>", "<h2>Comparability</h2>",
        "<h2>Settings and definitions</h2>",
    )  # fmt: skip
    places = [page.find(title) for title in titles]
    assert -1 not in places
    assert places == sorted(places)
    assert page.count("NOT COMPARABLE: iterations") == 2


@pytest.mark.slow
def test_figures_hold_no_date_and_no_program(page: str) -> None:
    drawings = [base64.b64decode(found).decode() for found in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    assert len(drawings) >= 8
    for drawing in drawings:
        assert "<dc:" not in drawing
        assert "<metadata" not in drawing
        assert "<script" not in drawing.lower()


@pytest.mark.slow
def test_smallest_comparison_is_written(smallest: Comparison, tmp_path: Path) -> None:
    text = write_report(smallest, tmp_path).read_text(encoding="utf-8")
    assert "not testable" in text
    assert "Learning curves" not in text
    assert "against cost" not in text
    assert "Worst cases" not in text
    assert "<p>Nothing is known of the costs of any method.</p>" in text
    assert "GFLOPs per patch" not in text
    assert 'not checked: 1 of 1 items; see <a href="#comparability">Comparability</a>' in text
    assert text.count("which cases each fold was validated on") == 1  # in the table alone


@pytest.mark.slow
def test_users_settings_of_matplotlib_change_nothing(smallest: Comparison) -> None:
    import matplotlib

    expected = report_texts(smallest)["report.html"]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        assert report_texts(smallest)["report.html"] == expected
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.slow
def test_nothing_is_written_if_drawing_fails(
    smallest: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room for a figure")

    monkeypatch.setattr(gallery, "draw_rank_stability", fail)
    with pytest.raises(MemoryError, match="no room"):
        write_report(smallest, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_many_classes_and_methods_stay_small(tmp_path: Path) -> None:
    comparison = planted(10, 1, 40, tuple(f"class {number}" for number in range(30)), metrics=("Dice",))
    text = report_texts(comparison)["report.html"]
    assert len(text.encode()) < 5_000_000
    assert "19 classes in which the methods differ less" in text


def test_pareto_front_keeps_what_no_cheaper_method_equals() -> None:
    costs = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}
    assert pareto_front(costs, {"a": 0.5, "b": 0.4, "c": 0.9, "d": 0.8}, True) == ["a", "d", "c"]
    assert pareto_front(costs, {"a": 5.0, "b": 4.0, "c": 9.0, "d": 8.0}, False) == ["a", "b"]

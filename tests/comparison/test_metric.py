"""What holds for every registered metric, and for metrics of users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetv2.comparison.among_classes import AmongClasses
from nnunetv2.comparison.empty_masks import apply_empty_policy
from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_OVERLAP, METRICS, EmptyMasks, Metric, register_metric, require_usable
from nnunetv2.comparison.report.definitions import definitions
from nnunetv2.comparison.report.formatting import with_unit
from nnunetv2.comparison.scoring import score_runs
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import DataError, UsageError
from tests.comparison.test_scoring import ArrayReader, run, save

OWN = """
from nnunetv2.comparison.metric import EmptyMasks, Metric, register_metric

@register_metric("Pieces")
class Pieces(Metric):
    meaning = "error in the number of pieces"
    definition = "difference {{of}} both numbers."
    higher_is_better = False
    unit = "pieces"
    digits = 1
    empty_masks = EmptyMasks(missed="computed", absent={absent})

    def compute(self, pair):
        from scipy.ndimage import label
        return {value}
"""
DIFFERENCE = "abs(label(pair.prediction)[1] - label(pair.reference)[1])"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts pieces, of an empty mask as of any other."""
    return write_own(tmp_path, monkeypatch)


def write_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str = "'computed'", value: str = DIFFERENCE
) -> Path:
    folder = tmp_path / "own"
    folder.mkdir(exist_ok=True)
    file = folder / "pieces.py"
    file.write_text(OWN.format(absent=absent, value=value))
    monkeypatch.setenv("nnUNet_extensions", str(folder))
    return file


@pytest.fixture
def study(tmp_path: Path) -> tuple[list, dict[str, Path]]:
    """Two models on one case: two pieces in the reference of the first class, none in that of the second."""
    reference = np.array([[[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]])
    right, wrong = reference.copy(), np.array([[[0, 0, 0, 0, 0], [2, 0, 2, 0, 2]]])
    models = [run(tmp_path / name, {"a": labels}) for name, labels in (("right", right), ("wrong", wrong))]
    return models, save(tmp_path / "truth", {"a": reference})


def scored(study, metrics=("Dice", "Pieces"), empty="exclude", reader=None, **kwargs):
    settings = CompareSettings(metrics=metrics, empty=empty)
    return score_runs(*study, {"first": 1, "second": 2}, reader or ArrayReader(), settings, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_equal_masks_have_the_best_value_and_a_file_says_what_it_is(name):
    metric = METRICS[name]
    thick = name in ("RecallMedium", "RecallThick")  # which need a core of this width, without a tunnel
    size = 5 if name == "RecallThick" else 3
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[1 : 1 + size, 2 : 2 + size, 3 : 4 + size] = True
    other = np.roll(mask, 6, axis=2)
    if not thick:
        mask[1:4, 3, 5] = False  # a tunnel, which the other mask lacks
    right, wrong = AmongClasses((7, 5), (7, 5), (7, 5), 0), AmongClasses((7, 5), (5, 3), (2, 1), 0)
    best = metric.compute(MaskPair.of_masks(mask, mask, (2.0, 1.0, 1.0), among=right))
    worse = metric.compute(MaskPair.of_masks(other, mask, (2.0, 1.0, 1.0), among=wrong))
    assert best == (1 if metric.higher_is_better else 0)
    assert (best > worse) == metric.higher_is_better
    assert metric.name == name and metric.origin is None
    assert metric.meaning and metric.definition.endswith(".")


def test_a_number_of_its_own_replaces_what_is_missed_or_absent():
    numbers = {"num_reference": np.array([[0], [0], [5]]), "num_predicted": np.array([[[0], [3], [0]]])}

    @register_metric("Dice")  # any known name: the rule is looked up by it
    class Own(Metric):
        meaning, definition, higher_is_better = "own", "own.", True
        empty_masks = EmptyMasks(missed=-2.0, absent=(0.25, 0.5))

        def compute(self, pair: MaskPair) -> float:
            return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnunetv2.comparison.empty_masks.METRICS", {"Dice": Own()})
        for policy, expected in (("exclude", [np.nan, np.nan, -2.0]), ("one", [0.25, 0.5, -2.0])):
            found = apply_empty_policy("Dice", np.full((1, 3, 1), 0.75), **numbers, diagonals=np.ones(3), policy=policy)
            np.testing.assert_array_equal(found.ravel(), expected)


@pytest.mark.parametrize(("empty", "expected"), [("exclude", [[0, np.nan], [2, np.nan]]), ("one", [[0, 0], [2, 3]])])
def test_an_empty_mask_is_computed_where_the_rule_says_so(own, study, empty, expected):
    table = scored(study, empty=empty)
    np.testing.assert_array_equal(table.values["Pieces"][:, 0], expected)
    assert list(table.num_worst_distances) == []


def test_the_report_says_what_its_rule_is(own, study):
    for empty, text in (
        ("exclude", "Pieces: where nothing is predicted of a class that is there, what is computed of the empty mask."),
        ("one", "; of a class that the reference lacks, what is computed of the empty mask."),
    ):
        found = dict(definitions(CompareSettings(metrics=("Dice", "Pieces"), empty=empty), scored(study)))
        assert found["Empty masks"].endswith(text)
        assert "Edges" not in found
    assert found["Pieces"].startswith("Error in the number of pieces: difference {of} both numbers. Lower is better. ")
    assert with_unit(2.26, "Pieces", "mm") == "2.3 pieces"


def test_a_metric_that_is_added_leaves_known_scores_alone_and_one_that_changed_is_scored_again(
    study, tmp_path, monkeypatch
):
    scored(study, ("Dice",), cache_folder=tmp_path / "cache")
    first = write_own(tmp_path, monkeypatch)
    computed = []
    dice = type(METRICS["Dice"])
    monkeypatch.setattr(dice, "compute", lambda self, pair: computed.append(1) or 1.0)
    for num_reads in (3, 0):  # then from the cache
        reader = ArrayReader()
        table = scored(study, reader=reader, cache_folder=tmp_path / "cache")
        assert table.values["Pieces"][1, 0, 0] == 2
        assert len(reader.reads) == num_reads
    assert computed == []
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "pieces.py").write_text(first.read_text() + "\n")
    monkeypatch.setenv("nnUNet_extensions", str(changed))
    reader = ArrayReader()
    scored(study, reader=reader, cache_folder=tmp_path / "cache")
    assert len(reader.reads) == 3 and computed == []


def test_a_run_and_a_metric_that_are_added_together_leave_what_is_known_alone(study, tmp_path, monkeypatch):
    models, references = study
    scored((models[:1], references), ("Dice",), cache_folder=tmp_path / "cache")
    write_own(tmp_path, monkeypatch)
    found = scored(study, cache_folder=tmp_path / "cache")
    expected = scored(study)
    for metric in ("Dice", "Pieces"):
        np.testing.assert_array_equal(found.values[metric], expected.values[metric])


def test_a_file_that_changed_after_its_import_is_refused(own, study):
    scored(study)
    own.write_text(own.read_text() + "\n")
    with pytest.raises(UsageError, match=r"pieces.py has changed since it was imported; restart Python"):
        scored(study)


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_a_value_that_is_no_number_is_refused_with_the_case(study, tmp_path, monkeypatch, value):
    write_own(tmp_path, monkeypatch, value=value)
    with pytest.raises(DataError, match="Case a: The metric Pieces computed (nan|inf); a value has to be a finite"):
        scored(study)


def test_a_declaration_that_is_wrong_is_refused():
    class Bare(Metric):
        meaning, higher_is_better = "bare", True

    with pytest.raises(
        UsageError, match=r"Bare must define compute\(self, pair\), see Metric of nnunetv2.comparison.m"
    ):
        register_metric("Bare")(Bare)

    class Declared(Bare):
        def compute(self, pair: MaskPair) -> float:
            return 0.0

    with pytest.raises(UsageError, match="Declared must set definition, empty_masks"):
        register_metric("Declared")(Declared)
    with pytest.raises(UsageError, match="dict must be a class that derives from Metric of"):
        register_metric("Declared")(dict)
    Declared.definition, Declared.empty_masks = "bare.", AS_OVERLAP
    for name in ("a,b", "a b", "-a", ""):
        with pytest.raises(UsageError, match="no space or comma"):
            register_metric(name)(Declared)
    assert register_metric("Declared")(Declared).name == "Declared"
    for attribute, wrong, message in (
        ("higher_is_better", "no", "Declared.higher_is_better is 'no'; it must be True or False"),
        ("meaning", "", "Declared.meaning is ''; it must be a text"),
        ("empty_masks", 0.0, r"Declared.empty_masks is 0.0; it must be AS_OVERLAP, AS_DISTANCE or EmptyMasks\("),
        ("unit", None, "Declared.unit is None; it must be a text"),
        (
            "reads",
            "masks",
            "Declared.reads is 'masks'; it must be a tuple with some of among, counts, distances, masks, skeletons",
        ),
        ("reads", ("mask",), r"Declared.reads is \('mask',\); it must be a tuple with"),
        ("compute", lambda self: 0.0, r"Declared.compute\(self\) must accept the arguments \(self, pair\) of Metric"),
        ("compute", 0.0, "Declared.compute, which is no method, must accept the arguments"),
    ):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError, match=message):
            patch.setattr(Declared, attribute, wrong)
            register_metric("Declared")(Declared)
    for wrong in ({"missed": "diagnal"}, {"missed": float("nan")}, {"missed": 0.0, "absent": "one"}):
        with pytest.raises(TypeError, match="neither finite numbers nor"):
            EmptyMasks(**wrong)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("compute(", "computed(", r"pieces.py, line 4: Pieces must define compute\(self, pair\)"),
        ("higher_is_better", "is_better", "pieces.py, line 4: Pieces must set higher_is_better"),
        ('EmptyMasks(missed="computed"', 'EmptyMasks(missed="computd"', "pieces.py, line 11: TypeError: EmptyMasks"),
        (
            "    def compute",
            "    def __init__(self, a): pass\n    def compute",
            "pieces.py: TypeError: .* argument: 'a'",
        ),
    ],
)
def test_a_mistake_in_a_file_is_found_before_anything_is_scored(own, old, new, message):
    own.write_text(own.read_text().replace(old, new))
    settings = CompareSettings(metrics=("Dice", "Pieces"))
    with pytest.raises(UsageError, match=message):
        require_usable(settings.metrics)
    require_usable(("Dice",))  # metrics that are not asked for stop nothing


def test_a_name_that_two_files_register_stops_only_comparisons_that_need_it(own):
    (own.parent / "more.py").write_text(own.read_text())
    assert CompareSettings().metrics[-1] == "Pieces"
    assert CompareSettings(metrics=("Dice",)).primary.name == "Dice"
    with pytest.raises(UsageError, match=r"'Pieces' is registered by Pieces of .*more.py and by Pieces of .*pieces.py"):
        require_usable(CompareSettings().metrics)


def test_an_unknown_metric_is_named_with_those_of_the_user(own):
    with pytest.raises(UsageError, match=r"metrics='Piece' is not known; choose one of .*NSD, .*Pieces.*mean Pieces"):
        CompareSettings(metrics=("Piece",))

"""Scores of several runs, and what is kept of them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.comparison import scoring, scoring_cache
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.scores import Run, ScoreTable
from nnunetv2.comparison.scoring import score_runs
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import DataError, UsageError

OVERLAP = CompareSettings(metrics=("Dice", "IoU"))
ALL_METRICS = ("Dice", "IoU", "NSD", "HD95", "ASSD")
CLASSES = {"kidney": 1, "kidney and tumour": (1, 2)}


class ArrayReader:
    """Reads .npy files; `reads` lists them by their last two names."""

    spacing = (2.0, 1.0, 1.0)

    def __init__(self) -> None:
        self.reads: list[str] = []

    def read_seg(self, path: str) -> tuple[np.ndarray, dict]:
        self.reads.append("/".join(Path(path).parts[-2:]))
        return np.load(path)[None].astype(np.float32), {"spacing": list(self.spacing)}


def save(folder: Path, segmentations: Mapping[str, np.ndarray]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    files = {case: folder / f"{case}.npy" for case in segmentations}
    for case, array in segmentations.items():
        np.save(files[case], array.astype(np.uint8))
    return files


def run(folder: Path, segmentations: Mapping[str, np.ndarray], method: str = "") -> Run:
    return Run(method or folder.name, folder, save(folder, segmentations), {})


@pytest.fixture
def study(tmp_path: Path) -> tuple[list[Run], dict[str, Path]]:
    """Two models on three cases of random labels."""
    random = np.random.default_rng(0)
    cases = ("b", "a", "c")
    models = [
        run(tmp_path / name, {case: random.integers(0, 3, (2, 4, 5)) for case in cases}) for name in ("first", "second")
    ]
    return models, save(tmp_path / "truth", {case: random.integers(0, 3, (2, 4, 5)) for case in cases})


def compare(study, reader=None, settings=OVERLAP, **kwargs) -> ScoreTable:
    models, references = study
    return score_runs(models, references, CLASSES, reader or ArrayReader(), settings, **kwargs)


def require_equal(found: ScoreTable, expected: ScoreTable) -> None:
    assert (found.runs, found.cases, found.classes) == (expected.runs, expected.cases, expected.classes)
    assert list(found.values) == list(expected.values)
    for name in ("values", "num_worst_distances"):
        for metric, values in getattr(expected, name).items():
            np.testing.assert_array_equal(getattr(found, name)[metric], values, strict=True)
    for name in ("num_reference", "num_predicted", "voxel_volume"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


def test_table_has_every_run_case_and_class_in_its_place(study):
    table = compare(study)
    assert table.cases == ("a", "b", "c")
    assert table.classes == ("kidney", "kidney and tumour")
    models, references = study
    for r, model in enumerate(models):
        for n, case in enumerate("abc"):
            predicted, expected = np.load(model.predictions[case]), np.load(references[case])
            for k, members in enumerate([(1,), (1, 2)]):
                inside, truth = np.isin(predicted, members), np.isin(expected, members)
                common = (inside & truth).sum()
                assert table.values["Dice"][r, n, k] == 2 * common / (inside.sum() + truth.sum())
                assert table.values["IoU"][r, n, k] == common / (inside | truth).sum()
                assert table.num_predicted[r, n, k] == inside.sum()
                assert table.num_reference[n, k] == truth.sum()
    assert table.voxel_volume.tolist() == [2.0] * 3
    assert list(table.num_worst_distances) == []


@pytest.mark.parametrize(
    ("reference", "prediction", "policy", "overlap", "distance"),
    [
        (0, 0, "exclude", np.nan, np.nan),
        (0, 1, "exclude", np.nan, np.nan),
        (1, 0, "exclude", 0.0, 13.0),
        (0, 0, "one", 1.0, np.nan),
        (0, 1, "one", 0.0, np.nan),
        (1, 0, "one", 0.0, 13.0),
    ],
)
def test_six_cases_of_empty_masks_are_exact(tmp_path, reference, prediction, policy, overlap, distance):
    def image(label: int) -> np.ndarray:
        array = np.zeros((6, 3, 4))  # 12 by 3 by 4 mm
        array[1, 1, 1:3] = label
        return array

    model = run(tmp_path / "model", {"a": image(prediction)})
    references = save(tmp_path / "truth", {"a": image(reference)})
    settings = CompareSettings(metrics=ALL_METRICS, empty=policy)
    table = score_runs([model], references, {"kidney": 1}, ArrayReader(), settings)
    for metric in ("Dice", "IoU", "NSD"):
        np.testing.assert_array_equal(table.values[metric], [[[overlap]]])
    for metric in ("HD95", "ASSD"):
        np.testing.assert_array_equal(table.values[metric], [[[distance]]])
        assert table.num_worst_distances[metric].tolist() == [[int(reference > prediction)]]
    assert (table.num_reference.item(), table.num_predicted.item()) == (2 * reference, 2 * prediction)


def test_order_of_cases_and_of_runs_does_not_matter(study):
    models, references = study
    expected = compare(study)
    turned = [
        Run(each.method, each.folder, dict(sorted(each.predictions.items(), reverse=True)), {}) for each in models[::-1]
    ]
    found = compare((turned, dict(sorted(references.items()))))
    assert found.cases == expected.cases
    for metric in OVERLAP.metrics:
        np.testing.assert_array_equal(found.values[metric][::-1], expected.values[metric])


def test_ignored_voxels_of_the_reference_take_no_part(tmp_path):
    model = run(tmp_path / "model", {"a": np.array([[[1, 1, 0, 1]], [[0, 0, 0, 0]]])})
    references = save(tmp_path / "truth", {"a": np.array([[[1, 9, 9, 9]], [[0, 0, 0, 0]]])})
    table = score_runs([model], references, {"kidney": 1}, ArrayReader(), OVERLAP, ignore_label=9)
    assert (table.values["Dice"].item(), table.num_predicted.item()) == (1.0, 1)


def test_known_scores_are_taken_without_reading_an_image(study, tmp_path):
    expected = compare(study)
    first, again = ArrayReader(), ArrayReader()
    require_equal(compare(study, first, cache_folder=tmp_path / "cache"), expected)
    assert len(first.reads) == 9
    require_equal(compare(study, again, cache_folder=tmp_path / "cache"), expected)
    assert again.reads == []
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["a.json", "b.json", "c.json"]


def test_a_run_that_is_added_is_all_that_is_scored(study, tmp_path):
    models, references = study
    compare((models[:1], references), cache_folder=tmp_path / "cache")
    reader = ArrayReader()
    require_equal(compare(study, reader, cache_folder=tmp_path / "cache"), compare(study))
    assert reader.reads == ["truth/a.npy", "second/a.npy", "truth/b.npy", "second/b.npy", "truth/c.npy", "second/c.npy"]


def test_another_treatment_of_empty_masks_scores_nothing_again(study, tmp_path):
    compare(study, cache_folder=tmp_path / "cache")
    reader, settings = ArrayReader(), CompareSettings(metrics=("IoU",), empty="one", num_resamples=200, alpha=0.01)
    require_equal(compare(study, reader, settings, cache_folder=tmp_path / "cache"), compare(study, settings=settings))
    assert reader.reads == []


def test_a_prediction_that_changed_is_scored_again(study, tmp_path):
    models, references = study
    compare(study, cache_folder=tmp_path / "cache")
    shutil.copy(references["b"], models[1].predictions["b"])
    reader = ArrayReader()
    table = compare(study, reader, cache_folder=tmp_path / "cache")
    assert reader.reads == ["truth/b.npy", "second/b.npy"]
    assert table.values["Dice"][1, 1].tolist() == [1.0, 1.0]


def test_a_reference_that_changed_is_scored_again_for_all_runs(study, tmp_path):
    compare(study, cache_folder=tmp_path / "cache")
    np.save(study[1]["c"], np.ones((2, 4, 5), np.uint8))
    reader = ArrayReader()
    require_equal(compare(study, reader, cache_folder=tmp_path / "cache"), compare(study))
    assert reader.reads == ["truth/c.npy", "first/c.npy", "second/c.npy"]


def test_a_spacing_that_changed_in_the_file_beside_a_segmentation_is_noticed(study, tmp_path):
    compare(study, cache_folder=tmp_path / "cache")
    study[1]["a"].with_suffix(".json").write_text('{"spacing": [1, 1, 1]}')
    reader = ArrayReader()
    compare(study, reader, cache_folder=tmp_path / "cache")
    assert reader.reads == ["truth/a.npy", "first/a.npy", "second/a.npy"]


def test_other_classes_and_another_version_of_the_metrics_are_scored_again(study, tmp_path, monkeypatch):
    models, references = study
    compare(study, cache_folder=tmp_path / "cache")
    reader = ArrayReader()
    score_runs(models, references, {"tumour": (1, 2)}, reader, OVERLAP, cache_folder=tmp_path / "cache")
    score_runs(models, references, CLASSES, reader, OVERLAP, ignore_label=2, cache_folder=tmp_path / "cache")
    monkeypatch.setattr(scoring_cache, "METRIC_CODE_VERSION", -1)
    compare(study, reader, cache_folder=tmp_path / "cache")
    assert len(reader.reads) == 27
    assert len(json.loads((tmp_path / "cache" / "a.json").read_text())) == 8  # what was known before is kept


def spoil(entries: dict, what: str) -> str:
    if what == "cut off":
        return json.dumps(entries)[:-30]
    if what == "another file":
        return '["a", 1]'
    if what == "other entries":
        return json.dumps({key: {"dice": 1} for key in entries})
    first, second = entries
    if what == "exchanged":
        return json.dumps({first: entries[second], second: entries[first]})
    entries[first]["scores"]["values"]["Dice"] = [1.0, 1.0]
    return json.dumps(entries)


@pytest.mark.parametrize("what", ["cut off", "another file", "other entries", "exchanged", "edited"])
def test_a_cache_file_that_was_spoiled_is_not_believed(study, tmp_path, what, caplog):
    expected = compare(study, cache_folder=tmp_path / "cache")
    file = tmp_path / "cache" / "b.json"
    right = file.read_text()
    file.write_text(spoil(json.loads(right), what))
    reader = ArrayReader()
    with caplog.at_level(logging.WARNING):
        require_equal(compare(study, reader, cache_folder=tmp_path / "cache"), expected)
    assert reader.reads == ["truth/b.npy", "first/b.npy", "second/b.npy"]
    assert f"{file} holds no scores that can be used" in caplog.text
    assert file.read_text() == right


def test_equal_predictions_of_two_runs_are_scored_once(study, tmp_path):
    models, references = study
    for case, path in models[0].predictions.items():
        shutil.copy(path, models[1].predictions[case])
    reader = ArrayReader()
    table = compare(study, reader, cache_folder=tmp_path / "cache")
    assert len(reader.reads) == 6
    np.testing.assert_array_equal(table.values["Dice"][0], table.values["Dice"][1])


def test_cases_before_a_failure_are_kept(study, tmp_path):
    models, references = study
    np.save(models[1].predictions["b"], np.ones((2, 4, 6), np.uint8))
    with pytest.raises(
        DataError, match=r"^Case b: The prediction .*second/b.npy .*shape \(2, 4, 6\) against \(2, 4, 5\)"
    ):
        compare(study, cache_folder=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.json"]


def test_a_run_that_lacks_cases_is_refused_and_named(study):
    models, references = study
    lacking = Run("second", models[1].folder, {"a": models[1].predictions["a"]}, {})
    with pytest.raises(
        NotComparableError, match=r"second has no prediction of 2 of 3 cases: b, c; predict them first$"
    ):
        compare(([models[0], lacking], references))


@pytest.mark.parametrize("with_cache", [True, False])
def test_a_file_that_is_missing_is_named(study, tmp_path, with_cache):
    study[0][1].predictions["c"].unlink()
    with pytest.raises(DataError, match="Case c: there is no segmentation .*second/c.npy"):
        compare(study, cache_folder=tmp_path / "cache" if with_cache else None)


@pytest.mark.parametrize("region", [0, (0, 1), ()])
def test_background_is_no_class(study, region):
    with pytest.raises(UsageError, match="Class tissue is .*; a class is a label from 1 upwards"):
        score_runs(*study, {"tissue": region}, ArrayReader(), OVERLAP)


def test_nothing_to_compare_is_refused(study):
    models, references = study
    for given, what in ((([], references), "model"), ((models, {}), "case with a reference")):
        with pytest.raises(UsageError, match=f"There is no {what} to compare"):
            compare(given)


@pytest.mark.slow
def test_surface_scores_come_back_from_the_cache_as_they_were(study, tmp_path):
    models, references = study
    save(models[0].folder, {"b": np.zeros((2, 4, 5))})
    settings = CompareSettings(metrics=ALL_METRICS)
    expected = compare(study, settings=settings)
    assert expected.num_worst_distances["HD95"].tolist() == [[1, 1], [0, 0]]
    compare(study, settings=settings, cache_folder=tmp_path / "cache")
    reader = ArrayReader()
    require_equal(compare(study, reader, settings, cache_folder=tmp_path / "cache"), expected)
    compare(study, reader, CompareSettings(metrics=("Dice", "NSD"), nsd_tolerance=2.0), cache_folder=tmp_path / "cache")
    assert len(reader.reads) == 9  # with another tolerance


@pytest.mark.slow
def test_worker_processes_give_the_same_table(tmp_path, monkeypatch):
    import SimpleITK as sitk

    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    random = np.random.default_rng(0)

    def files(folder: str) -> dict[str, Path]:
        (tmp_path / folder).mkdir()
        paths = {case: tmp_path / folder / f"{case}.nii.gz" for case in "dacb"}
        for path in paths.values():
            sitk.WriteImage(sitk.GetImageFromArray(random.integers(0, 3, (2, 4, 5), dtype=np.uint8)), str(path))
        return paths

    models, references = [Run(name, tmp_path / name, files(name), {}) for name in ("x", "y")], files("truth")
    expected = score_runs(models, references, CLASSES, SimpleITKIO(), OVERLAP, num_processes=1)
    monkeypatch.setattr(
        scoring, "num_processes_for", lambda files, at_most: at_most
    )  # these are too small to be worth it
    found = score_runs(models, references, CLASSES, SimpleITKIO(), OVERLAP, num_processes=2)
    require_equal(found, expected)

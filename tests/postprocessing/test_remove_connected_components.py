"""Largest components equal upstream's; files of steps are read both ways and run nothing."""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.segmentation_format import descriptions
from nnunetv2.postprocessing import remove_connected_components as module
from nnunetv2.postprocessing.entry_points import build_apply_parser, build_determine_parser
from nnunetv2.postprocessing.remove_connected_components import (
    apply_postprocessing,
    apply_postprocessing_to_folder,
    determine_postprocessing,
    entry_point_apply_postprocessing,
    entry_point_determine_postprocessing_folder,
    largest_component,
    load_postprocessing,
    remove_all_but_largest_component_from_segmentation,
)
from nnunetv2.utilities.restricted_pickle import save_pickle
from tests.recorded.crossval_cases import (
    CASES,
    dataset_json,
    plans,
    prediction,
    reference,
    write_descriptions,
    write_segmentation,
)

RECORDED = Path(__file__).parents[1] / "recorded"
KEEP = remove_all_but_largest_component_from_segmentation
KEEP_NAME = "remove_all_but_largest_component_from_segmentation"


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 50), (12, 30, 20), (1, 40, 40), (5, 6, 7, 8)])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_largest_components_are_those_of_acvl_utils(shape, density):
    from acvl_utils.morphology.morphology_helper import remove_all_but_largest_component

    for seed in range(5):
        mask = np.random.default_rng(seed).random(shape) < density
        np.testing.assert_array_equal(largest_component(mask), remove_all_but_largest_component(mask))


def test_corners_connect_and_ties_stay():
    mask = np.zeros((3, 5, 5), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True  # touch at a corner
    mask[2, 4, 4] = True
    np.testing.assert_array_equal(np.argwhere(largest_component(mask)), [[0, 0, 0], [1, 1, 1]])
    mask[2, 4, 3] = True
    np.testing.assert_array_equal(largest_component(mask), mask)
    assert not largest_component(np.zeros((2, 3, 4), bool)).any()


def test_a_region_is_one_component_and_the_input_is_not_changed():
    segmentation = np.array([[1, 2, 0, 2, 0, 1, 1, 1, 1]], np.int16)
    before = segmentation.copy()
    assert KEEP(segmentation, [1, 2]).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]
    assert KEEP(segmentation, (1, 2)).tolist() == KEEP(segmentation, [1, 2]).tolist()
    assert KEEP(segmentation, [(1, 2)]).tolist() == KEEP(segmentation, [1, 2]).tolist()
    assert KEEP(segmentation, 1).tolist() == [[0, 2, 0, 2, 0, 1, 1, 1, 1]]
    assert KEEP(segmentation, 2).tolist() == segmentation.tolist()  # two of one size
    assert KEEP(segmentation, 1, background_label=7).tolist() == [[7, 2, 0, 2, 0, 1, 1, 1, 1]]
    assert KEEP(segmentation, 3).dtype == np.int16
    np.testing.assert_array_equal(segmentation, before)


def test_steps_are_applied_one_after_the_other():
    segmentation = np.array([[2, 1, 1, 0, 2, 2]])
    kwargs = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]
    assert apply_postprocessing(segmentation, [KEEP, KEEP], kwargs).tolist() == [[2, 1, 1, 0, 0, 0]]
    assert apply_postprocessing(segmentation, [KEEP, KEEP], kwargs[::-1]).tolist() == [[0, 1, 1, 0, 2, 2]]
    assert apply_postprocessing(segmentation, [], []) is segmentation


@pytest.mark.oracle
def test_upstreams_files_are_read(tmp_path):
    functions, kwargs = load_postprocessing(RECORDED / "best_configuration_labels.pkl")
    assert functions == [KEEP, KEEP]
    assert kwargs == [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]
    assert type(kwargs[1]["labels_or_regions"]) is int
    save_pickle((functions, kwargs), tmp_path / "ours.pkl")
    assert KEEP.__module__ == "nnunetv2.postprocessing.remove_connected_components"  # where upstream looks for it
    assert pickle.loads((tmp_path / "ours.pkl").read_bytes()) == (functions, kwargs)
    assert load_postprocessing(tmp_path / "ours.pkl") == (functions, kwargs)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    "content",
    [
        Evil(),
        ([Evil()], [{"labels_or_regions": 1}]),
        ([shutil.rmtree], [{"labels_or_regions": 1}]),
        ([KEEP], [{"labels_or_regions": 1, "more": 2}]),
        ([KEEP], []),
        ([dict], [{"labels_or_regions": 1}]),
        {"labels_or_regions": 1},
        3,
    ],
)
def test_other_files_are_refused_and_run_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "postprocessing.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"postprocessing.pkl (was not opened|does not hold postprocessing steps)"):
        load_postprocessing(tmp_path / "postprocessing.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions of two cases without summary, and references of three."""
    for case in range(3):
        write_segmentation(reference("labels", case), tmp_path / "reference" / f"{CASES[case]}.nii.gz")
    for case in range(2):
        write_segmentation(prediction("labels", 0, case), tmp_path / "prediction" / f"{CASES[case]}.nii.gz")
    write_descriptions(tmp_path / "prediction", "labels")
    return tmp_path / "prediction", tmp_path / "reference"


def arrays(folder: Path) -> list[list]:
    return [sitk.GetArrayFromImage(sitk.ReadImage(str(path))).tolist() for path in sorted(folder.glob("*.nii.gz"))]


def test_what_is_determined_can_be_applied_by_command(folders, tmp_path, caplog):
    caplog.set_level("INFO")
    predictions, references = folders
    assert entry_point_determine_postprocessing_folder(["-i", str(predictions), "-ref", str(references)]) == 0
    arguments = ["-i", str(predictions), "-o", str(tmp_path / "out")]
    arguments += ["-pp_pkl_file", str(predictions / "postprocessing.pkl"), "-np", "1"]
    assert entry_point_apply_postprocessing(arguments) == 0
    assert caplog.messages[-1] == f"Postprocessed 2 cases into {tmp_path / 'out'}"
    assert arrays(tmp_path / "out") == arrays(predictions / "postprocessed") != arrays(predictions)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"case_0.nii.gz", "case_1.nii.gz", "plans.json", "dataset.json"}
    for folder in (tmp_path / "out", predictions / "postprocessed"):
        assert descriptions(str(folder)) == descriptions(str(predictions))
    before, after = (json.loads((predictions / name / "summary.json").read_text()) for name in (".", "postprocessed"))
    report = json.loads((predictions / "postprocessing.json").read_text())
    assert report["input_folder"]["foreground_mean"] == before["foreground_mean"]
    assert report["postprocessed"]["mean"] == after["mean"]
    assert report["postprocessing_fns"] == [KEEP_NAME] * len(report["postprocessing_kwargs"]) != []


@pytest.mark.slow
def test_steps_are_scored_on_the_files_and_not_by_an_older_summary(folders):
    predictions, references = folders
    expected = determine_postprocessing(predictions, references, num_processes=1)
    scores = (predictions / "summary.json").read_text()
    (predictions / "summary.json").write_text(scores.replace("0.", "0.99"))
    assert determine_postprocessing(predictions, references, num_processes=1) == expected


@pytest.mark.slow
def test_postprocessed_files_can_be_left_out(folders):
    predictions, references = folders
    arguments = ["-i", str(predictions), "-ref", str(references)]
    assert entry_point_determine_postprocessing_folder(arguments) == 0
    report = (predictions / "postprocessing.json").read_text()
    assert entry_point_determine_postprocessing_folder([*arguments, "--remove_postprocessed"]) == 0
    assert not (predictions / "postprocessed").exists()
    assert (predictions / "postprocessing.json").read_text() == report


def test_files_describing_the_labels_may_lie_elsewhere(folders, tmp_path):
    predictions, _ = folders
    (predictions / "plans.json").unlink()
    (predictions / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"There is no .*plans.json; .*name one of a model .*\(-plans_json\)"):
        apply_postprocessing_to_folder(predictions, tmp_path / "out", [KEEP], [{"labels_or_regions": 1}])
    assert not (tmp_path / "out").exists()
    (tmp_path / "plans.json").write_text(json.dumps(plans("labels")))
    steps = [KEEP], [{"labels_or_regions": [1, 2]}]
    apply_postprocessing_to_folder(
        predictions, tmp_path / "out", *steps, str(tmp_path / "plans.json"), dataset_json("labels"), 1
    )
    assert len(arrays(tmp_path / "out")) == 2


def test_folders_without_segmentations_are_refused(folders, tmp_path):
    predictions, references = folders
    with pytest.raises(DataError, match="There is no folder .*nowhere"):
        apply_postprocessing_to_folder(tmp_path / "nowhere", tmp_path / "out", [], [])
    (references / "case_1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 2 predictions in .* have no reference"):
        determine_postprocessing(predictions, references)
    for path in predictions.glob("*.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"There is no prediction \(\*\.nii\.gz\)"):
        determine_postprocessing(predictions, references)
    with pytest.raises(DataError, match=r"There is no segmentation \(\*\.nii\.gz\)"):
        apply_postprocessing_to_folder(predictions, tmp_path / "out", [], [])


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("command", "build"),
    [
        ("nnUNetv2_determine_postprocessing", build_determine_parser),
        ("nnUNetv2_apply_postprocessing", build_apply_parser),
    ],
)
def test_functions_and_flags_are_upstreams(command, build, oracle_recorded, monkeypatch):
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    for name, parameters in json.loads((oracle_recorded / "api.json").read_text())[module.__name__].items():
        assert ", ".join(inspect.signature(getattr(module, name)).parameters) == (parameters or "argv")
    cli = json.loads((oracle_recorded / "cli.json").read_text())[command]["args"]
    actions = {tuple(action.option_strings): action for action in build()._actions[1:]}
    assert set(actions) == {tuple(argument["flags"]) for argument in cli}
    for argument in cli:
        action = actions[tuple(argument["flags"])]
        assert (action.default, action.required) == (argument["default"], argument["required"])
        assert ("flag" if action.nargs == 0 else action.nargs) == argument["nargs"]


def test_segmentations_are_not_overwritten_in_place_and_a_damaged_one_stops_no_other(folders, tmp_path):
    predictions, _ = folders
    save_pickle(([KEEP], [{"labels_or_regions": 1}]), tmp_path / "steps.pkl")
    common = ["-i", str(predictions), "-pp_pkl_file", str(tmp_path / "steps.pkl"), "-np", "1"]
    before = arrays(predictions)
    assert entry_point_apply_postprocessing([*common, "-o", f"{predictions}/"]) == 2
    assert arrays(predictions) == before
    (predictions / "case_0.nii.gz").write_bytes(b"damaged")
    assert entry_point_apply_postprocessing([*common, "-o", str(tmp_path / "out")]) == 4
    assert list(json.loads((tmp_path / "out" / "failures.json").read_text())) == ["case_0"]
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["case_1.nii.gz"]


def test_a_missing_file_of_steps_is_answered_with_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*steps.pkl; give the postprocessing.pkl that nnUNetv2_find_best"):
        load_postprocessing(tmp_path / "steps.pkl")

"""Ensembles equal upstream's; predictions that do not belong together are refused."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2.ensembling import ensemble
from nnunetv2.ensembling.ensemble import (
    average_probabilities,
    ensemble_crossvalidations,
    ensemble_folders,
    entry_point_ensemble_folders,
)
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.processes.case_failures import PartialPredictionError
from nnunetv2.utilities.restricted_pickle import load_restricted
from tests.recorded.ensemble_cases import (
    CASES,
    LABELS,
    PLANS,
    PROPERTIES,
    probabilities,
    write_crossvalidation,
    write_predictions,
)

RECORDED = Path(__file__).parents[1] / "recorded"
KINDS = sorted(LABELS)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED / "ensembles.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [str(write_predictions(tmp_path / f"model_{model}", "labels", model)) for model in range(3)]


def segmentation(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_ensembles_of_folders_equal_upstreams(kind, tmp_path, recorded):
    folders = [str(write_predictions(tmp_path / f"model_{model}", kind, model)) for model in range(3)]
    output = tmp_path / "out"
    ensemble_folders(folders, str(output), True, 1)
    for case in CASES:
        np.testing.assert_array_equal(segmentation(output / f"{case}.nii.gz"), recorded[f"{kind}_{case}_out"])
        with np.load(output / f"{case}.npz") as content:
            assert content["probabilities"].dtype == np.float32
            np.testing.assert_array_equal(content["probabilities"], recorded[f"{kind}_{case}_probabilities"])
        assert load_restricted(output / f"{case}.pkl") == PROPERTIES
    assert sitk.ReadImage(str(output / f"{CASES[0]}.nii.gz")).GetSpacing() == (0.5, 1.0, 3.0)
    assert json.loads((output / "dataset.json").read_text()) == LABELS[kind]
    assert (
        json.loads((output / "plans.json").read_text()) == PLANS
    )  # upstream leaves it out, and postprocessing needs it


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_ensembles_of_crossvalidations_equal_upstreams(kind, tmp_path, recorded):
    splits = [{0: CASES[:1], 1: CASES[1:]}, {0: CASES[1:], 1: CASES[:1]}]
    models = [write_crossvalidation(tmp_path / f"cv_{model}", kind, model, split) for model, split in enumerate(splits)]
    ensemble_crossvalidations(models, tmp_path / "out", (0, 1), 1)
    for case in CASES:
        np.testing.assert_array_equal(
            segmentation(tmp_path / "out" / f"{case}.nii.gz"), recorded[f"{kind}_{case}_cv_out"]
        )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"case_1.nii.gz", "case_2.nii.gz", "dataset.json", "plans.json"}


def test_cases_that_are_there_are_left_out_if_asked(tmp_path):
    models = [write_crossvalidation(tmp_path / f"cv_{model}", "labels", model, {0: CASES}) for model in range(2)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case_1.nii.gz").write_text("of an earlier run")
    ensemble_crossvalidations(models, tmp_path / "out", (0,), 1, overwrite=False)
    assert (tmp_path / "out" / "case_1.nii.gz").read_text() == "of an earlier run"
    assert segmentation(tmp_path / "out" / "case_2.nii.gz").shape == (3, 6, 5)
    ensemble_crossvalidations(models, tmp_path / "out", (0,), 1)
    assert segmentation(tmp_path / "out" / "case_1.nii.gz").shape == (3, 6, 5)


def test_average_is_the_mean_and_changes_no_file(folders):
    files = [f"{folder}/case_1.npz" for folder in folders]
    expected = np.mean([probabilities("labels", model, 0) for model in range(3)], axis=0)
    np.testing.assert_allclose(average_probabilities(files), expected, atol=5e-4)  # one of them was stored in float16
    np.testing.assert_array_equal(average_probabilities(files), average_probabilities(files))


def test_command_writes_segmentations_alone(folders, tmp_path, caplog):
    caplog.set_level("INFO")
    assert entry_point_ensemble_folders(["-i", *folders, "-o", str(tmp_path / "out"), "-np", "1"]) == 0
    assert caplog.messages[-1] == f"Averaged 2 cases into {tmp_path / 'out'}"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"case_1.nii.gz", "case_2.nii.gz", "dataset.json", "plans.json"}


def test_given_descriptions_go_before_those_in_the_folders(folders, tmp_path):
    for folder in folders:
        (Path(folder) / "dataset.json").unlink()
        (Path(folder) / "plans.json").unlink()
    with pytest.raises(DataError, match="There is no .*dataset.json"):
        ensemble_folders(folders, tmp_path / "out", num_processes=1)
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(PLANS))
    ensemble_folders(folders, tmp_path / "out", False, 1, LABELS["labels"], str(path))
    assert segmentation(tmp_path / "out" / "case_2.nii.gz").shape == (3, 6, 5)


def change_labels(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | changes))


def break_npz(folder: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(folder / "case_1.npz", **arrays)


BROKEN = {
    "missing case": (lambda f: (f / "case_2.npz").unlink(), r"model_1 has no probabilities of case_2, which another"),
    "no probabilities": (
        lambda f: [path.unlink() for path in f.glob("*.npz")],
        r"model_1 has no probabilities \(\.npz\); predict with --save_probabilities",
    ),
    "other shape": (
        lambda f: break_npz(f, probabilities=np.zeros((3, 3, 6, 4), np.float32)),
        r"Case case_1: .*model_1/case_1.npz has probabilities of shape \(3, 3, 6, 4\) and .* of \(3, 3, 6, 5\)",
    ),
    "other classes": (
        lambda f: break_npz(f, probabilities=np.zeros((2, 3, 6, 5), np.float32)),
        r"Case case_1: .*shape \(2, 3, 6, 5\) and .*of one image for the same classes",
    ),
    "no such array": (lambda f: break_npz(f, softmax=np.zeros(3)), r"case_1.npz has no array named probabilities"),
    "objects": (lambda f: break_npz(f, probabilities=np.array([{}])), r"case_1.npz cannot be read .*allow_pickle"),
    "truncated": (
        lambda f: (f / "case_1.npz").write_bytes((f / "case_1.npz").read_bytes()[:200]),
        r"case_1.npz cannot be read .*predict this case again",
    ),
    "other labels": (
        lambda f: change_labels(f, labels={"background": 0, "b": 1, "a": 2}),
        r"model_1 and .*model_0 do not belong together: .*'b': 1, 'a': 2",
    ),
    "regions": (
        lambda f: change_labels(f, **LABELS["regions"]),
        r"do not belong together: .*regions_class_order \[1, 2\]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_predictions_that_do_not_belong_together_are_refused(name, folders, tmp_path):
    damage, message = BROKEN[name]
    damage(Path(folders[1]))
    with pytest.raises(DataError, match=message):
        ensemble_folders(folders, tmp_path / "out", num_processes=1)
    assert not (tmp_path / "out").exists()


def test_classes_must_be_those_of_the_labels(folders, tmp_path):
    four = LABELS["labels"] | {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}
    with pytest.raises(DataError, match=r"model_0/case_1.npz has probabilities of 3 classes, and the labels .* need 4"):
        ensemble_folders(folders, tmp_path / "out", num_processes=1, dataset_json_file_or_dict=four)


def test_labels_may_be_declared_in_another_order_and_with_an_ignored_one(folders, tmp_path):
    change_labels(Path(folders[1]), labels={"b": 2, "background": 0, "a": 1, "ignore": 3})
    ensemble_folders(folders, tmp_path / "out", num_processes=1)
    assert segmentation(tmp_path / "out" / "case_1.nii.gz").shape == (3, 6, 5)


def test_the_properties_of_the_first_folder_must_be_there_and_harmless(folders, tmp_path):
    (Path(folders[1]) / "case_1.pkl").unlink()  # only those of the first are used
    ensemble_folders(folders, tmp_path / "out", num_processes=1)
    (Path(folders[0]) / "case_1.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(PartialPredictionError, match=r"1 of 2 cases failed: case_1 \(.*case_1.pkl was not opened"):
        ensemble_folders(folders, tmp_path / "out", num_processes=1)
    (Path(folders[0]) / "case_1.pkl").unlink()
    with pytest.raises(DataError, match=r"Case case_1: there is no .*model_0/case_1.pkl"):
        ensemble_folders(folders, tmp_path / "out", num_processes=1)


def test_folders_must_be_distinct(folders, tmp_path):
    with pytest.raises(UsageError, match=r"model_0/ was given twice"):
        ensemble_folders([*folders, folders[0] + "/"], tmp_path / "out")
    with pytest.raises(UsageError, match=r"The output folder .*model_2 is one of the inputs"):
        ensemble_folders(folders, folders[2])
    with pytest.raises(UsageError, match=r"There is no folder .*nowhere"):
        ensemble_folders([*folders, str(tmp_path / "nowhere")], tmp_path / "out")
    with pytest.raises(UsageError, match="No folder to ensemble"):
        ensemble_folders([], tmp_path / "out")
    (tmp_path / "link").symlink_to(folders[0])
    with pytest.raises(UsageError, match=r"link was given twice"):
        ensemble_folders([folders[0], tmp_path / "link"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_crossvalidations_must_be_complete(tmp_path):
    models = [write_crossvalidation(tmp_path / f"cv_{model}", "labels", model, {0: CASES}) for model in range(2)]
    with pytest.raises(DataError, match=r"cv_0 has no validation of fold 1 .*; train it with: nnUNetv2_train "):
        ensemble_crossvalidations(models, tmp_path / "out", (0, 1), 1)
    for model in models:
        shutil.copytree(model / "fold_0", model / "fold_1")
    with pytest.raises(DataError, match=r"cv_0 validated case case_1 in two folds: .*fold_0.* and .*fold_1"):
        ensemble_crossvalidations(models, tmp_path / "out", (0, 1), 1)
    (models[1] / "fold_0" / "validation" / "case_2.npz").unlink()
    with pytest.raises(DataError, match=r"cv_1 has no probabilities of case_2"):
        ensemble_crossvalidations(models, tmp_path / "out", (0,), 1)


def test_a_failed_case_leaves_nothing_half_written(folders, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("nnunetv2.imageio.simpleitk_reader_writer.SimpleITKIO.write_seg", fail)
    with pytest.raises(RuntimeError, match=r"case_1 \(OSError: disk full\), case_2 \(OSError: disk full\)"):
        ensemble_folders(folders, tmp_path / "out", num_processes=1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"dataset.json", "plans.json", "failures.json"}


def test_a_case_that_fails_stops_no_other_and_older_files_are_named(folders, tmp_path, monkeypatch):
    arguments = ["-i", *folders, "-o", str(tmp_path / "out"), "-np", "1"]
    assert entry_point_ensemble_folders([*arguments, "--save_npz"]) == 0
    older = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    damaged = Path(folders[1], "case_1.npz")
    damaged.write_bytes(damaged.read_bytes()[:60] + bytes(100) + damaged.read_bytes()[160:])  # its header is read well
    monkeypatch.setattr(ensemble.probability_arrays, "require_matching", lambda *_: None)
    assert entry_point_ensemble_folders(arguments) == 4
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert list(failures) == ["case_1"]
    assert failures["case_1"].endswith("predict this case again; case_1.nii.gz is there from an earlier run")
    assert (tmp_path / "out" / "case_1.nii.gz").stat().st_mtime_ns == older["case_1.nii.gz"]
    assert (tmp_path / "out" / "case_2.nii.gz").stat().st_mtime_ns > older["case_2.nii.gz"]
    assert not (tmp_path / "out" / "case_2.npz").exists()  # of the ensemble before


@pytest.mark.oracle
def test_functions_and_flags_are_upstreams(oracle_recorded, monkeypatch):
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    api = json.loads((oracle_recorded / "api.json").read_text())["nnunetv2.ensembling.ensemble"]
    for name, parameters in api.items():
        assert ", ".join(inspect.signature(getattr(ensemble, name)).parameters) == (parameters or "argv")
    cli = json.loads((oracle_recorded / "cli.json").read_text())["nnUNetv2_ensemble"]["args"]
    actions = {tuple(action.option_strings): action for action in ensemble.build_parser()._actions[1:]}
    assert set(actions) == {tuple(argument["flags"]) for argument in cli}
    for argument in cli:
        action = actions[tuple(argument["flags"])]
        assert (action.default, action.required) == (argument["default"], argument["required"])
        assert ("flag" if action.nargs == 0 else action.nargs) == argument["nargs"]

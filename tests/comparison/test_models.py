"""From the words of `-m` to runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetv2.comparison.models import find_runs
from nnunetv2.comparison.runs import run_names
from nnunetv2.errors import DataError, UsageError
from tests.comparison.model_folders import DATASET, FOLDS, NAME, RUN_LINE, Model, write_dataset, write_predictions


@pytest.fixture
def results(nnunet_folders) -> Path:
    write_dataset(nnunet_folders)
    return nnunet_folders["nnUNet_results"] / DATASET


def seeded(seed: int | None) -> Model:
    return Model(run_line={**RUN_LINE, "seed": seed})


def test_a_model_is_named_by_its_folder_in_the_results(results):
    folder = Model().write(results / NAME)
    (run,) = find_runs("777", [NAME])
    assert (run.method, run.folder, run.seed, run.number) == (NAME, folder, None, 0)
    assert run.fold_of == {case: fold for fold, cases in FOLDS.items() for case in cases}
    assert run.predictions["<d>"] == folder / "fold_1" / "validation" / "<d>.png"


def test_words_with_one_method_are_its_trainings_in_the_order_of_their_seeds(results, tmp_path):
    for seed in (None, 10, 2):
        seeded(seed).write(tmp_path / f"seed={seed}" / NAME)
    words = [f"unet={tmp_path}/seed={seed}/{NAME}" for seed in (None, 10, 2)]
    runs = find_runs(DATASET, words)
    assert [(run.method, run.seed, run.number) for run in runs] == [("unet", 2, 0), ("unet", 10, 1), ("unet", None, 2)]
    assert run_names(runs) == ("unet (seed 2)", "unet (seed 10)", "unet (run 3)")
    assert find_runs(DATASET, words[::-1]) == runs
    assert run_names(runs[:1]) == ("unet",)


def test_what_has_a_path_separator_is_no_method(results, tmp_path):
    Model().write(tmp_path / "lr=3" / NAME)
    (run,) = find_runs(DATASET, [f"{tmp_path}/lr=3/{NAME}"])
    assert run.method == NAME


def test_a_folder_of_segmentations_is_a_run_without_folds(results, tmp_path):
    folder = write_predictions(tmp_path / "made_elsewhere", ["a", "b"])
    (folder / "notes.txt").touch()
    (run,) = find_runs(DATASET, [str(folder)])
    assert (run.method, run.is_model, sorted(run.predictions)) == ("made_elsewhere", False, ["a", "b"])


def test_the_seed_is_that_of_all_folds(results, tmp_path):
    folder = seeded(7).write(tmp_path / NAME)
    assert find_runs(DATASET, [str(folder)])[0].seed == 7
    path = folder / "fold_1" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    assert find_runs(DATASET, [str(folder)])[0].seed is None
    assert find_runs(DATASET, [str(folder)], ["1"])[0].seed == 8


def test_a_seed_is_read_from_debug_json_where_there_are_no_metrics(results, tmp_path):
    folder = Model(is_upstreams=True, debug={"seed": "5"}).write(tmp_path / NAME)
    assert find_runs(DATASET, [str(folder)])[0].seed == 5


@pytest.mark.parametrize("second", ["unet", "other"])
def test_two_trainings_of_a_method_must_not_share_a_seed(results, tmp_path, second):
    words = [f"{method}={seeded(3).write(tmp_path / method / place / NAME)}" for method, place in
             (("unet", "1"), (second, "2"))]  # fmt: skip
    if second == "unet":
        with pytest.raises(UsageError, match="of unet have one seed, 3.*different METHODs"):
            find_runs(DATASET, words)
    else:
        assert len(find_runs(DATASET, words)) == 2


def test_a_folder_is_given_once(results):
    folder = Model().write(results / NAME)
    with pytest.raises(UsageError, match="is given twice .a and b.; give each model once"):
        find_runs(DATASET, [f"a={NAME}", f"b={folder}"])


def test_methods_need_names_that_tell_them_apart(results, tmp_path):
    Model().write(results / NAME)
    other = Model().write(tmp_path / NAME)
    with pytest.raises(UsageError, match=f"Several models are called {NAME}; .*METHOD=MODEL"):
        find_runs(DATASET, [NAME, str(other)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nnUNetTrainer__nnUNetPlan__2d"], f"no model nnUNetTrainer__nnUNetPlan__2d .*; did you mean {NAME}?"),
        (["unet=zzz"], f"no model zzz .*; there are {NAME}"),
        (["no/where"], "There is no folder no/where; give that of a trained model or of predictions$"),
        (["a/b=no/where"], "There is no folder a/b=no/where; .*, and a METHOD in front of = has no /"),
        (["=x"], "-m =x lacks a name"),
        (["x="], "-m x= lacks a model"),
        ([], "No model is given"),
    ],
)
def test_wrong_words_are_refused(results, words, message):
    Model().write(results / NAME)
    with pytest.raises(UsageError, match=message):
        find_runs(DATASET, words)


def test_an_empty_folder_is_neither_model_nor_predictions(results, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"neither a trained model .* nor a folder of segmentations \(\*.png\)"):
        find_runs(DATASET, [str(tmp_path / "empty")])


def test_folds_are_those_that_are_asked_for_or_all_that_were_validated(results):
    folder = Model(folds={**FOLDS, "10": ("e",)}).write(results / NAME)
    (folder / "fold_2").mkdir()
    assert set(find_runs(DATASET, [NAME])[0].fold_of.values()) == {"0", "1", "10"}
    assert find_runs(DATASET, [NAME], ["1"])[0].fold_of == dict.fromkeys(FOLDS["1"], "1")
    with pytest.raises(DataError, match="has no validation of fold 2"):
        find_runs(DATASET, [NAME], ["0", "2"])
    with pytest.raises(UsageError, match="fold is 'x'; accepted are 0, 1, 2"):
        find_runs(DATASET, [NAME], ["x"])


def test_a_model_without_validation_is_refused(results):
    (Model(folds={}).write(results / NAME) / "fold_0").mkdir()
    with pytest.raises(DataError, match="has no validation"):
        find_runs(DATASET, [NAME])


def test_a_case_in_two_folds_is_refused(results):
    Model(folds={"0": ("a",), "all": ("a", "b")}).write(results / NAME)
    with pytest.raises(DataError, match="validated case a in two folds"):
        find_runs(DATASET, [NAME])


def test_models_tell_the_file_ending_where_the_dataset_is_not_there(nnunet_folders, tmp_path):
    model = Model().write(tmp_path / NAME)
    predictions = write_predictions(tmp_path / "p", ["a"])
    assert len(find_runs(DATASET, [str(predictions), str(model)])) == 2
    with pytest.raises(DataError, match=f"The description of {DATASET} is missing"):
        find_runs(DATASET, [str(predictions)])


def test_a_damaged_debug_file_counts_as_not_recorded(results, caplog):
    folder = Model(is_upstreams=True).write(results / NAME)
    (folder / "fold_0" / "debug.json").write_text("{")
    assert json.loads((folder / "fold_1" / "debug.json").read_text())
    assert find_runs(DATASET, [NAME])[0].seed is None
    assert "not valid JSON" in caplog.text

"""The best configuration is upstream's, with all its files; models that cannot be compared are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation import find_best_configuration as module
from nnunetv2.evaluation.best_configuration_arguments import build_accumulate_parser, build_find_best_parser
from nnunetv2.evaluation.find_best_configuration import (
    accumulate_crossval_results_entry_point,
    dumb_trainer_config_plans_to_trained_models_dict,
    filter_available_models,
    find_best_configuration,
    find_best_configuration_entry_point,
)
from nnunetv2.postprocessing.remove_connected_components import load_postprocessing
from tests.recorded.crossval_cases import (
    CASES,
    CONFIGURATIONS,
    FOLDS,
    KINDS,
    cases_of_fold,
    dataset_name,
    snapshot,
    write_experiment,
    write_model,
)

RECORDED = Path(__file__).parents[1] / "recorded" / "best_configuration.json"
TWO = dumb_trainer_config_plans_to_trained_models_dict(["nnUNetTrainer"], CONFIGURATIONS, ["nnUNetPlans"])
ENSEMBLE = "ensemble___nnUNetTrainer__nnUNetPlans__2d___nnUNetTrainer__nnUNetPlans__3d_fullres___0_1_2"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("template")
    roots = {name: folder / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    write_experiment(roots, "labels")
    return roots


@pytest.fixture
def experiment(template: dict[str, Path], nnunet_folders: dict[str, Path]) -> list[Path]:
    """Folders of two trained models."""
    for name, folder in nnunet_folders.items():
        shutil.copytree(template[name], folder, dirs_exist_ok=True)
    results = nnunet_folders["nnUNet_results"] / dataset_name("labels")
    return [results / f"nnUNetTrainer__nnUNetPlans__{configuration}" for configuration in CONFIGURATIONS]


def best(**changes) -> dict:
    return find_best_configuration(
        dataset_name("labels"), **{"allowed_trained_models": TWO, "num_processes": 1, "folds": FOLDS, **changes}
    )


def written(folders: dict[str, Path], kind: str = "labels") -> set[str]:
    """Files and folders beside the trained folds."""
    root = folders["nnUNet_results"] / dataset_name(kind)
    return {str(p.relative_to(root)) for p in root.rglob("*") if not any("fold_" in part for part in p.parts[:-1])}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_files_contents_and_decisions_are_upstreams(kind, nnunet_folders):
    recorded = json.loads(RECORDED.read_text())[kind]
    write_experiment(nnunet_folders, kind)
    find_best_configuration(dataset_name(kind), TWO, True, 1, True, FOLDS)
    found = snapshot(nnunet_folders)
    added = {f for f in found["files"] if f.endswith(("postprocessed/plans.json", "postprocessed/dataset.json"))}
    assert set(found["files"]) - added == set(recorded["files"]) - added and len(added) == 2
    assert found["segmentations"] == recorded["segmentations"]
    assert found["json"].keys() == recorded["json"].keys()
    for name, content in recorded["json"].items():
        assert json.dumps(found["json"][name], sort_keys=True) == json.dumps(content, sort_keys=True), name
    (file,) = nnunet_folders["nnUNet_results"].rglob("postprocessing.pkl")
    functions, kwargs = load_postprocessing(file)
    steps = [[function.__name__, keywords] for function, keywords in zip(functions, kwargs, strict=True)]
    assert json.loads(json.dumps(steps)) == recorded["postprocessing"]


@pytest.mark.slow
def test_summary_files_name_files_that_exist(experiment, nnunet_folders):
    best()
    for summary in nnunet_folders["nnUNet_results"].rglob("summary.json"):
        for case in json.loads(summary.read_text())["metric_per_case"]:
            assert Path(case["prediction_file"]).parent == summary.parent
            assert Path(case["prediction_file"]).is_file() and Path(case["reference_file"]).is_file()


@pytest.mark.slow
def test_no_overwrite_keeps_what_is_there_and_adds_what_is_missing(experiment, nnunet_folders):
    first = best()
    ensemble = nnunet_folders["nnUNet_results"] / dataset_name("labels") / "ensembles" / ENSEMBLE
    merged = experiment[0] / "crossval_results_folds_0_1_2"
    before = {path: path.stat().st_mtime_ns for path in (ensemble / "case_1.nii.gz", merged / "case_1.nii.gz")}
    (merged / "case_2.nii.gz").unlink()
    assert best(overwrite=False) == first
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (merged / "case_2.nii.gz").is_file()
    (ensemble / "of_an_older_split.nii.gz").write_text("")
    best()
    assert not (ensemble / "of_an_older_split.nii.gz").exists()


@pytest.mark.slow
def test_models_of_other_heads_go_together_by_command(experiment, nnunet_folders, capsys):
    write_model(nnunet_folders["nnUNet_results"], "labels", 1, "2d", "nnUNetTrainer_m2f")
    models = ["nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer_m2f__nnUNetPlans__2d"]
    arguments = ["992", "-m", *models, "-f", "0", "1", "2", "-np", "1"]
    assert find_best_configuration_entry_point(arguments) == 0
    results = nnunet_folders["nnUNet_results"] / dataset_name("labels")
    information = json.loads((results / "inference_information.json").read_text())
    assert set(information["all_results"]) == {*models, f"ensemble___{models[0]}___{models[1]}___0_1_2"}
    output = capsys.readouterr().out
    assert (results / "inference_instructions.txt").read_text() in output


@pytest.mark.slow
def test_without_ensembling_no_probabilities_are_needed(experiment, nnunet_folders):
    for path in nnunet_folders["nnUNet_results"].rglob("*.npz"):
        path.unlink()
    arguments = [dataset_name("labels"), "-c", *CONFIGURATIONS, "-f", "0", "1", "2", "-np", "1", "--disable_ensembling"]
    assert find_best_configuration_entry_point(arguments) == 0
    information = json.loads((experiment[0].parent / "inference_information.json").read_text())
    assert list(information["all_results"]) == [model.name for model in experiment]
    assert information["ensembling_allowed"] is False


def other_labels(model: Path) -> None:
    content = json.loads((model / "dataset.json").read_text())
    content["labels"] = {"background": 0, "b": 1, "a": 2}
    (model / "dataset.json").write_text(json.dumps(content))


def other_split(model: Path) -> None:
    for path in (model / "fold_1" / "validation").glob("case_0*"):
        path.unlink()


REFUSED = {
    "missing fold": (
        lambda m: shutil.rmtree(m / "fold_2"),
        r"3d_fullres has no validation of fold 2 .* "
        r"nnUNetv2_train Dataset992_labels 3d_fullres 2 -tr nnUNetTrainer -p nnUNetPlans --npz$",
    ),
    "no probabilities": (
        lambda m: [p.unlink() for p in (m / "fold_1").rglob("*.npz")],
        r"no probabilities \(\.npz\) of fold 1, .* "
        r"nnUNetv2_train Dataset992_labels 3d_fullres 1 -tr nnUNetTrainer -p nnUNetPlans --val --npz$",
    ),
    "one without probabilities": (
        lambda m: (m / "fold_0" / "validation" / "case_2.npz").unlink(),
        r"Fold 0 of .*3d_fullres has no probabilities \(\.npz\) of case_2, .* 3d_fullres 0 .*--val --npz$",
    ),
    "empty fold": (
        lambda m: [p.unlink() for p in (m / "fold_1" / "validation").iterdir()],
        r"no segmentation \(\*\.nii\.gz\) in .*fold_1/validation; validate the fold with: nnUNetv2_train .* 1 .*--val",
    ),
    "other split": (other_split, r"different cases: in these folds .*3d_fullres has no prediction of case_0, which"),
    "case in two folds": (
        lambda m: shutil.copytree(m / "fold_0", m / "fold_1", dirs_exist_ok=True),
        r"3d_fullres validated case case_2 in two folds: .*fold_0.* and .*fold_1",
    ),
    "other labels": (other_labels, r"do not belong together: .*'b': 1, 'a': 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_compared_are_refused_before_any_work(name, experiment, nnunet_folders):
    damage, message = REFUSED[name]
    damage(experiment[1])
    before = written(nnunet_folders)
    with pytest.raises(DataError, match=message):
        best()
    assert written(nnunet_folders) == before


def test_folds_that_the_splits_lack_are_not_to_be_trained_and_none_counts_twice(experiment, nnunet_folders):
    splits = [{"train": [], "val": []}] * len(FOLDS)
    folder = nnunet_folders["nnUNet_preprocessed"] / dataset_name("labels")
    (folder / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(UsageError, match=r"no validation of fold 3, 4, and the splits .* have 3 folds; give -f 0 1 2$"):
        best(folds=(0, 1, 2, 3, 4))
    with pytest.raises(UsageError, match="Fold 0 was given more than once"):
        best(folds=(0, 1, 0))


def test_a_model_with_settings_is_validated_by_its_own_command(experiment):
    model = experiment[0].rename(experiment[0].with_name("nnUNetTrainer_m2f__nnUNetPlans__2d"))
    settings = model / "fold_0" / "m2f_config.yaml"
    settings.write_text("")
    for path in model.rglob("*.npz"):
        path.unlink()
    models = [{**TWO[0], "trainer": "nnUNetTrainer_m2f"}, TWO[1]]
    command = "nnUNetv2_train_m2f Dataset992_labels 2d 0 -tr nnUNetTrainer_m2f -p nnUNetPlans --val --npz; "
    with pytest.raises(DataError, match=f"no probabilities .*of fold 0, 1, 2, .*{command}nnUNetv2_train_m2f"):
        best(allowed_trained_models=models)
    shutil.rmtree(model / "fold_1")
    with pytest.raises(DataError, match=f"nnUNetv2_train_m2f .* 2d 1 .* --npz --m2f_config {settings}$"):
        best(allowed_trained_models=models)


def test_configurations_that_the_plans_lack_are_left_out_and_untrained_ones_refused(experiment):
    dataset = dataset_name("labels")
    absent = {"plans": "nnUNetPlans", "configuration": "3d_superres", "trainer": "nnUNetTrainer"}
    assert filter_available_models([TWO[0], absent, *TWO], dataset) == list(TWO)
    untrained = {**absent, "configuration": "3d_lowres"}
    with pytest.raises(UsageError, match=r"__3d_lowres is not trained, .* nnUNetv2_train .* 3d_lowres 0 .*--npz, or"):
        filter_available_models([*TWO, untrained], dataset)
    with pytest.raises(UsageError, match=r"No model is left to compare; .* plans have \(-c\)"):
        filter_available_models([absent], dataset)
    with pytest.raises(UsageError, match="There are no plans 'nnUNetResEncUNetMPlans' of this dataset"):
        filter_available_models([{**absent, "plans": "nnUNetResEncUNetMPlans"}], dataset)


def test_a_model_that_is_named_itself_is_not_left_out(experiment, capsys):
    models = [experiment[0].name, "nnUNetTrainer__nnUNetPlans__3d_superres"]
    assert find_best_configuration_entry_point(["992", "-m", *models]) == 2
    expected = "3d_superres (-m); they have 2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres"
    assert expected in capsys.readouterr().err


def test_folds_that_cannot_predict_are_named(experiment, monkeypatch, caplog):
    monkeypatch.setattr(module, "_accumulated", lambda *_: 1 / 0)
    for fold in ("fold_0", "fold_1", "fold_2"):
        (experiment[0] / fold / "checkpoint_best.pth").touch()
    (experiment[1] / "fold_1" / "checkpoint_final.pth").touch()
    with pytest.raises(ZeroDivisionError):
        best()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{experiment[1]} has no checkpoint in fold 0, 2, which can be scored but cannot predict new images; train it "
        f"without --disable_checkpointing"
    ]


def test_a_cascade_without_its_first_stage_is_refused_before_any_work(experiment, nnunet_folders):
    experiment[0].rename(experiment[0].with_name("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"))
    before = written(nnunet_folders)
    models = [{**TWO[0], "configuration": "3d_cascade_fullres"}]
    with pytest.raises(DataError, match=r"__3d_lowres/plans.json; the model has not been trained"):
        best(allowed_trained_models=models)
    assert written(nnunet_folders) == before


def test_combinations_have_upstreams_order():
    models = dumb_trainer_config_plans_to_trained_models_dict(["A", "B"], ["2d", "3d"], ["P", "Q"])
    assert [tuple(model.values()) for model in models[:3]] == [("P", "2d", "A"), ("Q", "2d", "A"), ("P", "3d", "A")]
    assert len(models) == 8 and list(models[0]) == ["plans", "configuration", "trainer"]


def test_accumulating_by_command_refuses_folders_with_something_in_them(experiment, tmp_path, capsys):
    arguments = ["992", "-c", "2d", "-f", "0", "1", "2", "-o"]
    model = str(experiment[0])
    assert accumulate_crossval_results_entry_point([*arguments, model]) == 2
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "new").mkdir()
    assert accumulate_crossval_results_entry_point([*arguments, str(tmp_path / "new")]) == 0
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {*(f"{case}.nii.gz" for case in CASES), "summary.json", "plans.json", "dataset.json"}
    assert accumulate_crossval_results_entry_point(["992", "-c", "2d", "-tr", "nnUNetTrainer_m2f"]) == 2
    assert "There is no model" in capsys.readouterr().err


def test_folds_of_any_number_are_accumulated_into_a_folder_that_names_them(experiment):
    assert accumulate_crossval_results_entry_point(["992", "-c", "2d", "-f", "0", "2"]) == 0
    summary = json.loads((experiment[0] / "crossval_results_folds_0_2" / "summary.json").read_text())
    names = sorted(Path(case["prediction_file"]).name for case in summary["metric_per_case"])
    assert names == [f"{CASES[case]}.nii.gz" for case in sorted(cases_of_fold(0, 0) + cases_of_fold(0, 2))]


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("command", "build"),
    [
        ("nnUNetv2_find_best_configuration", build_find_best_parser),
        ("nnUNetv2_accumulate_crossval_results", build_accumulate_parser),
    ],
)
def test_flags_are_upstreams(command, build, oracle_recorded, monkeypatch):
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    cli = json.loads((oracle_recorded / "cli.json").read_text())[command]["args"]
    actions = {tuple(action.option_strings) or (action.dest,): action for action in build()._actions[1:]}
    assert set(actions) - {tuple(argument["flags"]) for argument in cli} <= {("-m",)}
    for argument in cli:
        action = actions[tuple(argument["flags"])]
        default = list(action.default) if isinstance(action.default, tuple) else action.default
        assert (default, action.required) == (argument["default"], argument["required"])
        assert ("flag" if action.nargs == 0 else action.nargs) == argument["nargs"]


@pytest.mark.parametrize("text", ["all", "-1", "x"])
def test_folds_are_those_of_a_cross_validation(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        find_best_configuration_entry_point(["992", "-f", "0", text])
    assert stopped.value.code == 2
    assert f"'{text}' is no fold of a cross-validation" in capsys.readouterr().err


def test_default_models_are_upstreams():
    assert [model["configuration"] for model in module.default_trained_models] == [
        "2d",
        "3d_fullres",
        "3d_lowres",
        "3d_cascade_fullres",
    ]
    assert {model["trainer"] for model in module.default_trained_models} == {"nnUNetTrainer"}

"""How far a training is, by its files, and the command that carries it on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.study.definitions import definition_differences, require_unchanged, write_definitions
from nnunetv2.study.jobs import State, jobs_of
from nnunetv2.study.methods import Method, settings_words
from nnunetv2.study.study_config import StudyConfig
from tests.study.study_jobs import make_job, mark

FINAL, SUMMARY = "checkpoint_final.pth", "validation/summary.json"


def make_method(name: str = "unet", **definition: object) -> Method:
    return Method(
        name, "T", "P", "2d", "nnUNetv2_train", "m", "--m2f_config", None, ("lora.r=4",), (), 10, 5, 2, (8, 8),
        {}, {"trainer": "T", "settings": {}, **definition},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ([], State.NEW),
        (["debug.json", "metrics.jsonl", SUMMARY], State.NEW),
        (["checkpoint_best.pth"], State.CUT_OFF),
        (["checkpoint_latest.pth", SUMMARY], State.CUT_OFF),
        (["checkpoint_best.pth", FINAL], State.TRAINED),
        (["checkpoint_best.pth", FINAL, SUMMARY], State.DONE),
    ],
)
def test_the_files_tell_how_far_a_training_is(tmp_path, files, state):
    job = make_job(tmp_path)
    mark(job, *files)
    assert job.state() is state


@pytest.mark.parametrize("damage", ["a segmentation is missing", "the scores are cut off", "the scores are empty"])
def test_a_validation_that_lost_files_is_repeated(tmp_path, damage):
    job = make_job(tmp_path)
    mark(job, FINAL, SUMMARY, "validation/a.png")
    summary = job.fold_folder / SUMMARY
    summary.write_text(json.dumps({"metric_per_case": [{"prediction_file": "/elsewhere/validation/a.png"}]}))
    assert job.state() is State.DONE
    if damage == "a segmentation is missing":
        (job.fold_folder / "validation" / "a.png").unlink()
    else:
        summary.write_text("" if damage.endswith("empty") else summary.read_text()[:20])
    assert job.state() is State.TRAINED


@pytest.mark.parametrize(
    ("state", "words"),
    [(State.NEW, ["-pretrained_weights", "a b.pth"]), (State.CUT_OFF, ["--c"]), (State.TRAINED, ["--val"])],
)
def test_the_command_goes_on_from_there(tmp_path, state, words):
    job = make_job(tmp_path, environment={"A": "x y"})
    assert job.command_words(state) == ["4", "2d", "1", "--seed", "0", *words]
    line = job.command_line(state)
    assert line.startswith(
        f"nnUNet_results={tmp_path}/study/trainings/unet/seed_0 A='x y' nnUNetv2_train 4 2d 1 --seed 0"
    )
    assert line.endswith({State.NEW: "-pretrained_weights 'a b.pth'"}.get(state, words[-1]))


def test_folders_of_the_environment_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_preprocessed", "data")
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(["one", "/two"]))
    environment = make_job(tmp_path, environment={"B": "1"}).full_environment()
    assert environment["nnUNet_preprocessed"] == str(tmp_path / "data")
    assert environment["nnUNet_extTrainer"] == os.pathsep.join([str(tmp_path / "one"), "/two"])
    assert (environment["B"], environment["nnUNet_results"]) == ("1", str(tmp_path / "study/trainings/unet/seed_0"))


def test_methods_take_turns(tmp_path):
    config = StudyConfig(dataset="4", folds=(0, "all"), seeds=(3, 4), models={"a": None, "b": None}, device="cpu")
    jobs = jobs_of(config, (make_method("a"), make_method("b")), "Dataset004_X", tmp_path, tmp_path)
    assert [(job.method, job.seed, job.fold) for job in jobs[:5]] == [
        ("a", 3, 0), ("b", 3, 0), ("a", 3, "all"), ("b", 3, "all"), ("a", 4, 0),
    ]  # fmt: skip
    assert " ".join(jobs[3].words) == "Dataset004_X 2d all lora.r=4 -tr T -p P -device cpu --seed 3"
    assert jobs[3].fold_folder == tmp_path / "trainings/b/seed_3/Dataset004_X/T__P__2d/fold_all"
    assert len({job.log for job in jobs} | {job.lock for job in jobs}) == 16


def test_budget_and_gpus_are_flags_of_every_training(tmp_path):
    from nnunetv2.training.setup.budget import Budget

    config = StudyConfig(dataset="4", models={"a": None}, num_gpus=2, budget=Budget(num_epochs=7, precision="bf16"))
    (job, *_) = jobs_of(config, (make_method("a"),), "Dataset004_X", tmp_path, tmp_path)
    assert "-device cuda -num_gpus 2 --num_epochs 7 --precision bf16 --seed 0" in " ".join(job.words)


def test_the_folder_of_results_is_not_the_users_to_choose(tmp_path):
    config = StudyConfig(dataset="4", models={"a": None}, environment={"nnUNet_results": "x"})
    with pytest.raises(UsageError, match="nnUNet_results, which the study chooses itself"):
        jobs_of(config, (), "Dataset004_X", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model.backbone": "dinov2", "model": {"type": "eomt"}}, ["model.backbone=dinov2", "model.type=eomt"]),
        ({"a": None, "b": True, "c": 1e-05, "d": [1, 2]}, ["a=null", "b=true", "c=1e-05", "d=[1, 2]"]),
        ({"a": "null", "b": "1", "c": "x: y"}, ['a="null"', 'b="1"', 'c="x: y"']),
        (["model.type=eomt"], ["model.type=eomt"]),
    ],
)
def test_settings_become_words(settings, words):
    assert settings_words(settings) == words


def test_a_changed_method_is_refused_where_it_has_been_trained(tmp_path):
    old = make_method(settings={"training.lr": 0.1, "lora.r": 4}, budget={"num_epochs": 5})
    new = make_method(settings={"training.lr": 0.2}, budget={"num_epochs": 5}, pretrained_weights=None)
    job = make_job(tmp_path)
    write_definitions([old], job.study_folder)
    require_unchanged([new], [job], job.study_folder)
    mark(job, "checkpoint_best.pth")
    require_unchanged([old], [job], job.study_folder)
    message = (
        r"unet has trainings in .*study/trainings/unet with another definition: lora.r: 4 there, not given now; "
        r"training.lr: 0.1 there, 0.2 now. Give the changed method another name"
    )
    with pytest.raises(UsageError, match=message):
        require_unchanged([new], [job], job.study_folder)
    elsewhere = make_job(tmp_path, model_folder=job.model_folder.with_name("Other__P__2d"))
    with pytest.raises(UsageError, match="lora.r: 4 there"):
        require_unchanged([new], [elsewhere], job.study_folder)


def test_a_definition_is_the_same_after_it_was_written():
    definition = make_method(settings={"a": [1, 2], "b": None}, budget={}).definition
    assert definition_differences(json.loads(json.dumps(definition)), definition) == []


def test_duration_of_epochs_is_read(tmp_path):
    job = make_job(tmp_path)
    mark(job, "metrics.jsonl")
    Path(job.fold_folder, "metrics.jsonl").write_text(
        '{"type": "run"}\n{"type": "epoch", "epoch": 0, "seconds": 2.5}\n{"type": "ep'
    )
    assert job.epoch_seconds() == [2.5]

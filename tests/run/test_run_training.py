"""The training command: flags, what is refused, and what a run starts from."""

from __future__ import annotations

import inspect
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dinov3.utils.processes import process_group
from nnunetv2.errors import UsageError
from nnunetv2.run import load_pretrained_weights as pretraining
from nnunetv2.run import run_training
from nnunetv2.run.training_run import TrainingRun, build_parser, parse_fold
from tests.training.tiny_dataset import NAME, write_tiny_dataset

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "training_api.json").read_text())
MODULES = {"nnunetv2.run.run_training": run_training, "nnunetv2.run.load_pretrained_weights": pretraining}
CPU = torch.device("cpu")


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


ADDED = {
    "--allow_config_change": False,
    "--num_folds": None,
    "--group_by": None,
    "--allow_leak": False,
    "--fast_dev_run": False,
    "--force": False,
    "--seed": None,
    "--num_epochs": None,
    "--num_iterations_per_epoch": None,
    "--num_val_iterations_per_epoch": None,
    "--precision": None,
    "-augmentation_device": "cpu",
}


def test_command_has_upstreams_arguments_and_some_more() -> None:
    ours = [
        (
            action.option_strings or [action.dest],
            "flag" if action.nargs == 0 else action.nargs,
            action.type and action.type.__name__,
            action.default,
            action.required,
        )
        for action in build_parser()._actions
        if not {"-h", *ADDED} & set(action.option_strings)
    ]
    theirs = [(a["flags"], a["nargs"], a["type"], a["default"], a["required"]) for a in RECORDED["flags"]]
    assert ours == theirs
    args = vars(build_parser().parse_args(["1", "2d", "0"]))
    assert {name: args[name.strip("-")] for name in ADDED} == ADDED


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in RECORDED["run"].items() for name in names])
def test_functions_take_upstreams_arguments_first(module: str, name: str) -> None:
    theirs = [argument for argument in RECORDED["run"][module][name].split(", ") if argument]
    ours = list(inspect.signature(getattr(MODULES[module], name)).parameters.values())
    assert [parameter.name for parameter in ours[: len(theirs)]] == theirs
    assert all(parameter.default is not inspect.Parameter.empty for parameter in ours[len(theirs) :])


@pytest.mark.parametrize("words", [["1", "2d", "0", "--cotinue"], ["1", "2d", "0", "--va"], ["1", "2d"]])
def test_misspelt_or_missing_arguments_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_training.run_training_entry(words)
    assert stop.value.code == 2
    assert "usage: nnUNetv2_train" in capsys.readouterr().err


def test_without_arguments_one_line_says_how_it_is_used_and_one_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run_training.run_training_entry([])
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: nnUNetv2_train dataset_name_or_id configuration fold [options]"
    assert error.endswith("the following arguments are required: dataset_name_or_id, configuration, fold")


@pytest.mark.parametrize(("given", "expected"), [("all", "all"), ("0", 0), (3, 3), ("12", 12)])
def test_fold_is_a_number_or_all(given: int | str, expected: int | str) -> None:
    assert parse_fold(given) == expected


@pytest.mark.parametrize("given", ["-1", "first", "", "1.5"])
def test_other_folds_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match=f"fold is '{given}'; accepted are 0, 1, 2, ... and all"):
        parse_fold(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"continue_training": True, "only_validate": True}, "--c continues training and --val only validates"),
        ({"continue_training": True, "pretrained_weights": "x.pth"}, "-pretrained_weights is for the start"),
        ({"validate_best": True, "disable_checkpointing": True}, "--val_best needs the checkpoint"),
    ],
)
def test_contradictory_wishes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingRun("1", "2d", 0, **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("778", "2d", 0), "There is no dataset with id 778"),
        ((NAME, "3d_fullres", 0), "no configuration '3d_fullres'"),
        ((NAME, "2d", "x"), "fold is 'x'"),
        ((NAME, "2d", 0, "nnUNetTrainr"), "no trainer named 'nnUNetTrainr'.*did you mean nnUNetTrainer"),
        ((NAME, "2d", 0, "nnUNetTrainer", "Plans2"), r"no plans Plans2 in .*\(only: nnUNetPlans\)"),
        (("Dataset778_Other", "2d", 0), "Dataset778_Other does not exist; run nnUNetv2_plan_and_preprocess"),
    ],
)
def test_what_is_not_there_is_named(dataset: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_training.get_trainer_from_args(*arguments, device=CPU)


def test_argument_that_the_trainer_does_not_take_is_refused(dataset: Path) -> None:
    with pytest.raises(UsageError, match="nnUNetTrainer takes no argument width"):
        run_training.get_trainer_from_args("777", "2d", 0, device=CPU, trainer_kwargs={"width": 3})


def test_a_copy_of_the_plans_that_kept_its_name_is_trained_as_in_upstream_with_a_warning(
    dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    folders = {}
    for name in ("nnUNetPlans", "Small"):
        (dataset / "Small.json").write_text(json.dumps({**plans, "plans_name": name}))
        trainer = run_training.get_trainer_from_args("777", "2d", 0, "nnUNetTrainer", "Small", device=CPU)
        folders[name] = Path(trainer.output_folder_base).name
    assert folders == {"nnUNetPlans": "nnUNetTrainer__nnUNetPlans__2d", "Small": "nnUNetTrainer__Small__2d"}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        f'{dataset / "Small.json"} has "plans_name": "nnUNetPlans", so its models are named '
        f'TRAINER__nnUNetPlans__CONFIGURATION, like those of -p nnUNetPlans; set "plans_name": "Small" in the file to '
        f"keep them apart"
    )


@pytest.mark.parametrize("name", [777, "777", NAME])
def test_dataset_may_be_given_by_number_or_name(dataset: Path, name: int | str) -> None:
    trainer = run_training.get_trainer_from_args(name, "2d", "0", device=CPU)
    assert trainer.output_folder.endswith(f"{NAME}/nnUNetTrainer__nnUNetPlans__2d/fold_0")


def test_fold_that_is_not_in_the_splits_is_refused_in_one_line(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_training.run_training_entry(["777", "2d", "7", "-device", "cpu"]) == 2
    assert "there is no fold 7: the folds are 0, 1, 2, 3, 4 and all" in capsys.readouterr().err


def test_the_fold_is_checked_before_pretrained_weights_are_read(dataset: Path, tmp_path: Path, capsys) -> None:
    weights = tmp_path / "no_checkpoint.pth"
    weights.touch()
    words = ["777", "2d", "7", "-device", "cpu", "-pretrained_weights", str(weights)]
    assert run_training.run_training_entry(words) == 2
    assert "there is no fold 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-pretrained_weights", "absent.pth"], "There is no file absent.pth"),
        (["-num_gpus", "0"], "-num_gpus is 0; it must be at least 1"),
    ],
)
def test_what_costs_nothing_is_checked_first(words: list[str], message: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr("dinov3.utils.devices.resolve_device", lambda _: pytest.fail("this imports torch"))
    assert run_training.run_training_entry(["777", "2d", "0", *words]) == 2  # nor is there such a dataset
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device that is asked for")
def test_absent_device_is_refused_in_one_line(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_training.run_training_entry(["777", "2d", "0"]) == 2
    assert "no cuda device" in capsys.readouterr().err


class _Recorder(SimpleNamespace):
    """Stands for a trainer: notes what it is told to load."""

    def load_checkpoint(self, path: str) -> None:
        self.loaded = Path(path).name

    def training_record(self) -> dict:
        return {}


@pytest.fixture
def recorder(tmp_path: Path) -> _Recorder:
    return _Recorder(output_folder=str(tmp_path), was_initialized=True, loaded=None)


def test_continue_without_checkpoint_starts_anew_with_a_warning(
    recorder: _Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run_training.maybe_load_checkpoint(recorder, True, False)
    assert recorder.loaded is None
    assert "There is no checkpoint" in caplog.text


def test_continue_takes_the_latest_checkpoint(recorder: _Recorder) -> None:
    for epoch, name in enumerate(("checkpoint_best.pth", "checkpoint_latest.pth")):
        content = {"network_weights": {}, "current_epoch": epoch, "logging": {}, "_best_ema": None}
        torch.save(content, Path(recorder.output_folder) / name)
    run_training.maybe_load_checkpoint(recorder, True, False)
    assert recorder.loaded == "checkpoint_latest.pth"


def test_validation_needs_the_final_checkpoint_or_the_best_where_that_is_wanted(recorder: _Recorder) -> None:
    (Path(recorder.output_folder) / "checkpoint_best.pth").touch()
    with pytest.raises(UsageError, match=r"Validation needs checkpoint_final\.pth.*only checkpoint_best\.pth"):
        run_training.maybe_load_checkpoint(recorder, False, True)
    run_training.maybe_load_checkpoint(recorder, False, True, validate_best=True)
    assert recorder.loaded == "checkpoint_best.pth"


def test_a_trainer_knows_the_file_that_it_starts_from(recorder: _Recorder, tmp_path: Path) -> None:
    recorder.network = nn.Linear(2, 2)
    torch.save({"network_weights": nn.Linear(2, 2).state_dict()}, tmp_path / "w.pth")
    run_training.maybe_load_checkpoint(recorder, False, False, str(tmp_path / "w.pth"))
    assert recorder.pretrained_file == str(tmp_path / "w.pth")


def test_free_port_can_be_bound() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", run_training.find_free_network_port()))


@pytest.mark.parametrize("variable", ["nnUNet_n_proc_DA", "nnUNet_def_n_proc"])
def test_wrong_numbers_of_workers_are_found_at_the_start(
    nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "many")
    with pytest.raises(UsageError, match=f"{variable} is 'many'"):
        run_training.run_training("777", "2d", 0, device=CPU)  # there is no such dataset, but that comes later


def test_more_processes_than_images_leave_nothing_behind(
    dataset: Path, nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "rank_and_world_size", lambda: (2, 3))
    with pytest.raises(UsageError, match="batch size 2 cannot be shared by 3 processes"):
        run_training.run_training("777", "2d", 0, device=CPU)
    assert list(nnunet_folders["nnUNet_results"].iterdir()) == []


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_client_of_upstream_may_start_the_processes(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    """`run_ddp` is given its number as an argument, the environment names the address alone."""
    runs = []
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(run_training, "train_as_one_of_several", lambda train, args, device: runs.append(*args))
    arguments = ("777", "2d", 0, "nnUNetTrainer", "nnUNetPlans", False, True, False, None, True, False)
    run_training.run_ddp(world_size - 1, *arguments, world_size, device_type="cpu")
    assert (runs[0].continue_training, runs[0].save_probabilities, runs[0].only_validate) == (True, True, False)
    given = [os.environ[variable] for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    assert given == [str(world_size - 1), str(world_size - 1), str(world_size)]

"""The prediction commands."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import UsageError
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_entry_points import (
    build_predict_from_modelfolder_parser,
    build_predict_parser,
    predict_entry_point,
    predict_entry_point_modelfolder,
)
from tests.inference.tiny_models import IMAGES, expected, model_folder

PREDICT = ["-i", "in", "-o", "out", "-d", "1", "-c", "2d"]
FROM_FOLDER = ["-i", "in", "-o", "out", "-m", "model"]


def defaults(parser: argparse.ArgumentParser, arguments: list[str]) -> dict:
    return vars(parser.parse_args(arguments))


def test_defaults_of_predict() -> None:
    assert defaults(build_predict_parser(), PREDICT) == {
        "i": "in",
        "o": "out",
        "d": "1",
        "p": "nnUNetPlans",
        "tr": "nnUNetTrainer",
        "c": "2d",
        "f": (0, 1, 2, 3, 4),
        "step_size": 0.5,
        "disable_tta": False,
        "verbose": False,
        "save_probabilities": False,
        "continue_prediction": False,
        "chk": "checkpoint_final.pth",
        "npp": 3,
        "nps": 3,
        "prev_stage_predictions": None,
        "num_parts": 1,
        "part_id": 0,
        "device": "cuda",
        "disable_progress_bar": False,
        "not_on_device": False,
        "num_gpus": 1,
    }


@pytest.mark.oracle
def test_flags_are_those_of_upstream_and_one_more(oracle_recorded: Path) -> None:
    commands = read_json(oracle_recorded / "cli.json")
    for name, parser in (
        ("nnUNetv2_predict", build_predict_parser()),
        ("nnUNetv2_predict_from_modelfolder", build_predict_from_modelfolder_parser()),
    ):
        ours = {flag: action for action in parser._actions for flag in action.option_strings}
        theirs = {flag: entry for entry in commands[name]["args"] for flag in entry["flags"]}
        assert set(ours) - {"-h", "--help", "-num_gpus"} == set(theirs)
        for flag, entry in theirs.items():
            default = ours[flag].default
            assert (list(default) if isinstance(default, tuple) else default) == entry["default"], flag
            assert ours[flag].required == entry["required"], flag


def test_numbers_of_processes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_npp", "7")
    monkeypatch.setenv("nnUNet_nps", "0")
    args = defaults(build_predict_parser(), PREDICT)
    assert (args["npp"], args["nps"]) == (7, 0)
    args = defaults(build_predict_from_modelfolder_parser(), FROM_FOLDER)
    assert (args["npp"], args["nps"]) == (3, 3)
    monkeypatch.setenv("nnUNet_npp", "many")
    with pytest.raises(UsageError, match="nnUNet_npp is 'many'"):
        build_predict_parser()


def test_folds_are_numbers_or_all() -> None:
    assert build_predict_parser().parse_args([*PREDICT, "-f", "0", "12", "all"]).f == [0, 12, "all"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-f", "x"], "neither a number nor all"), (["--save_probabilites"], "--save_probabilites"), (["extra"], "extra")],
)
def test_wrong_words_are_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_predict_parser().parse_args([*PREDICT, *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_continue_has_a_short_form_in_both_commands() -> None:
    assert build_predict_parser().parse_args([*PREDICT, "--c"]).continue_prediction
    assert build_predict_from_modelfolder_parser().parse_args([*FROM_FOLDER, "--c"]).continue_prediction


def test_upstreams_module_has_the_commands() -> None:
    assert predict_from_raw_data.predict_entry_point is predict_entry_point
    assert predict_from_raw_data.predict_entry_point_modelfolder is predict_entry_point_modelfolder


def check_expected(folder: Path) -> None:
    segmentation = np.asarray(nib.load(folder / "case.nii.gz").dataobj).transpose(2, 1, 0)
    assert (segmentation == expected()["3d_fullres_segmentation"]).mean() > 0.9995


def test_model_folder_command(tmp_path: Path) -> None:
    arguments = ["-i", str(IMAGES), "-o", str(tmp_path), "-m", str(model_folder("3d_fullres"))]
    assert predict_entry_point_modelfolder([*arguments, "-f", "0", "1", "-device", "cpu"]) == 0
    check_expected(tmp_path)


def test_predict_command(nnunet_folders: dict[str, Path], tmp_path: Path) -> None:
    source = model_folder("3d_fullres")
    shutil.copytree(source, nnunet_folders["nnUNet_results"] / "Dataset990_TinyModels" / source.name)
    arguments = ["-i", str(IMAGES), "-o", str(tmp_path / "out"), "-d", "990", "-c", "3d_fullres", "-device", "cpu"]
    assert predict_entry_point([*arguments, "-f", "0", "1"]) == 0
    check_expected(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-step_size", "1.5"], 2, "-step_size is 1.5"),
        (["-npp", "-1"], 2, "-npp is -1"),
        (["-num_gpus", "0"], 2, "-num_gpus is 0"),
        (["-f", "0", "-o", f"{IMAGES}/"], 2, "segmentations would go into the same folder; give another output folder"),
        (["-device", "tpu"], 2, "must be one of cpu, cuda, mps"),
        ([], 2, "the model has fold 0"),
        (["-f", "0", "-i", "nowhere"], 3, "There is no folder nowhere"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["-i", str(IMAGES), "-o", str(tmp_path / "out"), "-m", str(model_folder("3d_fullres")), "-device", "cpu"]
    assert predict_entry_point_modelfolder([*base, *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_part_out_of_range(capsys: pytest.CaptureFixture[str], nnunet_folders: dict[str, Path]) -> None:
    (nnunet_folders["nnUNet_raw"] / "Dataset001_A").mkdir()
    assert predict_entry_point([*PREDICT, "-num_parts", "2", "-part_id", "2", "-device", "cpu"]) == 2
    assert "-part_id is 2 with -num_parts 2" in capsys.readouterr().err


def test_absent_cuda_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = str(model_folder("3d_fullres"))
    assert predict_entry_point_modelfolder(["-i", "in", "-o", "out", "-m", model, "-f", "0"]) == 2
    assert "-device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("build", [build_predict_parser, build_predict_from_modelfolder_parser])
def test_npz_is_answered_with_the_flag_of_this_command(
    build: Callable[[], argparse.ArgumentParser], capsys: pytest.CaptureFixture[str]
) -> None:
    required = PREDICT if build is build_predict_parser else FROM_FOLDER
    with pytest.raises(SystemExit) as stopped:
        build().parse_args([*required, "--npz"])
    assert stopped.value.code == 2
    assert "arguments: --npz; predictions save probabilities with --save_probabilities" in capsys.readouterr().err

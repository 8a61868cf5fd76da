"""The command `nnUNetv2_train_m2f`: its arguments, and which settings a run takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2.run import run_training, run_training_m2f
from nnunetv2.run.run_training_m2f import build_parser, run_training_entry
from tests.training.tiny_dataset import write_tiny_dataset

REPOSITORY = Path(__file__).resolve().parents[2]


def flags(parser) -> dict[str, object]:
    return {action.option_strings[0]: action.default for action in parser._actions if action.option_strings}


def test_the_flags_are_those_of_the_training_command_and_one_more():
    theirs, ours = flags(run_training.build_parser()), flags(build_parser())
    more = {"--m2f_config": None, "--print_config": False, "--init_config": None}
    assert ours == theirs | {"-tr": "nnUNetTrainer_m2f"} | more


def test_settings_may_stand_before_and_behind_flags():
    words = "4 2d 0 lora.r=16 --m2f_config my.yaml training.lr=1e-3 -device cpu --c"
    args = build_parser().parse_intermixed_args(words.split())
    assert args.settings == ["lora.r=16", "training.lr=1e-3"]
    assert (args.config_path, args.device, args.c, args.fold) == ("my.yaml", "cpu", True, "0")


def test_help_does_not_import_torch():
    program = (
        "import sys, runpy\nsys.argv = ['nnUNetv2_train_m2f.py', '-h']\n"
        "try:\n    runpy.run_path('nnUNetv2_train_m2f.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'omegaconf', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "key=value" in done.stdout


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the command hands to the training, which is not started."""
    received: dict[str, object] = {}

    def run_from_arguments(args: object, trainer_kwargs: dict[str, object]) -> None:
        received.update(trainer_kwargs)

    monkeypatch.setattr(run_training, "run_from_arguments", run_from_arguments)
    return received


@pytest.fixture
def stored(nnunet_folders: dict[str, Path]) -> Path:
    """The settings that a fold was trained with."""
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    fold = nnunet_folders["nnUNet_results"] / "Dataset777_Tiny" / "nnUNetTrainer_m2f__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    path = fold / "m2f_config.yaml"
    path.write_text("lora:\n  r: 3\n")
    return path


@pytest.mark.parametrize("flag", ["--c", "--val"])
def test_a_trained_fold_keeps_its_settings(received, stored, flag):
    assert run_training_entry(["777", "2d", "0", flag, "lora.lora_alpha=4"]) == 0
    assert received == {"m2f_config_path": str(stored), "m2f_overrides": ["lora.lora_alpha=4"]}


def test_a_given_file_goes_before_the_kept_one(received, stored, tmp_path):
    given = tmp_path / "my.yaml"
    given.write_text("lora: {r: 2}\n")
    assert run_training_entry(["777", "2d", "0", "--c", "--m2f_config", str(given)]) == 0
    assert received["m2f_config_path"] == str(given)


@pytest.mark.parametrize("words", [["777", "2d", "0"], ["777", "2d", "1", "--c"]])
def test_a_new_training_and_an_untrained_fold_take_the_defaults(received, stored, words):
    assert run_training_entry(words) == 0
    assert received == {"m2f_config_path": None, "m2f_overrides": []}


def test_the_trainer_gets_the_settings_of_a_call_from_python(stored):
    import torch

    trainer = run_training_m2f.get_trainer_from_args(
        "777", "2d", 0, continue_training=True, device=torch.device("cpu"), overrides=["lora.lora_alpha=4"]
    )
    assert (trainer.m2f_config.lora.r, trainer.m2f_config.lora.lora_alpha) == (3, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lora.rank=3"], "There is no setting 'lora.rank'; did you mean lora.r?"),
        (["--m2f_config", "absent.yaml"], "The configuration file absent.yaml does not exist"),
        (
            ["-tr", "nnUNetTrainer"],
            "-tr nnUNetTrainer does not take the settings of nnUNetv2_train_m2f, which trains nnU",
        ),
        (["-tr", "nnUNetTrainer_segformer"], "train nnUNetTrainer_segformer by nnUNetv2_train -tr nnUNetTrainer_segf"),
        (["-tr", "nnUNetTrainer_m3f"], "There is no trainer named 'nnUNetTrainer_m3f'"),
        (["model.backbone_size=huge"], "dinov3 has tiny, small"),
        (["model.pretrained=true", "model.backbone_size=tiny"], "set model.pretrained=false"),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_code_2(stored, capsys, words, message):
    assert run_training_entry(["777", "2d", "1", "-device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

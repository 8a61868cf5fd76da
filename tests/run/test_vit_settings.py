"""Settings of the training commands of vision transformers: shown, as templates, and refused with a message."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nnunetv2.configs
from dinov3.utils.yaml_config import load_config, save_config
from nnunetv2.run import run_training, run_training_m2f, run_training_segformer
from nnunetv2.run import run_training_nodeepsupervision_mymodel as run_training_mymodel
from nnunetv2.run.vit_settings import template
from nnunetv2.training.nnUNetTrainer.m2f_config import load_m2f_config
from tests.training.tiny_dataset import write_tiny_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = {"m2f": run_training_m2f, "segformer": run_training_segformer, "vit": run_training_mymodel}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text("# mine\nmodel:\n  backbone_size: tiny\ntraining: {lr: 2e-4}\n")
    return path


@pytest.fixture
def no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("no_folders")
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("arguments", [[], ["4", "2d", "0", "-device", "cpu", "--npz"]])
def test_the_settings_in_force_are_printed_with_their_sources_and_can_be_read_back(
    tmp_path, path, capsys, name, arguments
):
    words = ["lora.r=3", f"--{name}_config", str(path), "--print_config"]
    assert MODULES[name].run_training_entry([*arguments, *words]) == 0
    text = capsys.readouterr().out
    found = {
        line.split("#")[0].strip(): line.split("# ")[1] for line in text.splitlines() if ":" in line and "#" in line
    }
    assert found["backbone_size: tiny"] == f"{path}:3"
    assert found["lr: 0.0002"] == f"{path}:4"
    assert found["r: 3"] == "command line: lora.r=3"
    assert found["weight_decay: 0.05"] == "default"
    assert found["tuning: lora"] == "follows from other settings"
    assert found["layer_decay: 1.0"] == "default; without effect, as model.tuning=lora"
    (tmp_path / "printed.yaml").write_text(text)
    schema = MODULES[name].COMMAND.schema()
    assert load_config(schema, tmp_path / "printed.yaml") == load_config(schema, path, ["lora.r=3"])


@pytest.fixture
def fold(nnunet_folders: dict[str, Path]) -> Path:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    fold = nnunet_folders["nnUNet_results"] / "Dataset777_Tiny" / "nnUNetTrainer_m2f__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    return fold


@pytest.mark.parametrize("flag", ["--c", "--val"])
def test_a_trained_fold_shows_its_own_settings(fold, capsys, flag):
    save_config(load_m2f_config(None, ["lora.r=5"]), fold / "m2f_config.yaml")
    assert run_training_m2f.run_training_entry(["777", "2d", "0", flag, "--print_config"]) == 0
    assert f"# {fold / 'm2f_config.yaml'}:" in capsys.readouterr().out


def test_a_fold_without_its_file_takes_the_settings_of_its_checkpoint(fold, capsys):
    config = load_m2f_config(None, ["lora.r=5", "model.backbone_size=tiny"])
    content = {"network_weights": {}, "current_epoch": 1, "logging": {}, "_best_ema": None}
    torch.save(content | {"trainer_config": dataclasses.asdict(config)}, fold / "checkpoint_latest.pth")
    assert run_training_m2f.run_training_entry(["777", "2d", "0", "--c", "--print_config"]) == 2
    assert f"{fold / 'm2f_config.yaml'} does not exist" in capsys.readouterr().err
    assert os.listdir(fold) == ["checkpoint_latest.pth"]  # to print writes nothing
    run = ("777", "2d", "0", "nnUNetTrainer_m2f", "nnUNetPlans")
    path = run_training_m2f.COMMAND.trainer_arguments(*run, True, None, [])["m2f_config_path"]
    assert path == str(fold / "m2f_config.yaml")
    assert load_m2f_config(path) == config


@pytest.mark.parametrize("name", MODULES)
def test_the_files_of_defaults_are_those_that_the_commands_write(name):
    """To renew one: remove it, and write it by --init_config."""
    shipped = Path(nnunetv2.configs.__path__[0]) / f"{name}_default.yaml"
    assert shipped.read_text(encoding="utf-8") == template(
        MODULES[name].COMMAND.program, MODULES[name].COMMAND.schema()
    )
    schema = MODULES[name].COMMAND.schema()
    assert load_config(schema, shipped) == load_config(schema)


@pytest.mark.usefixtures("no_folders")
def test_a_template_is_written_once(tmp_path, capsys):
    entry, target = run_training_m2f.run_training_entry, tmp_path / "new.yaml"
    assert entry(["--init_config", str(target)]) == 0
    assert (
        capsys.readouterr().out
        == f"Wrote all settings with their defaults to {target}; use it by --m2f_config {target}\n"
    )
    target.write_text("mine")
    assert entry([f"--init_config={target}"]) == 2
    assert target.read_text() == "mine"
    assert entry(["--init_config", str(tmp_path / "absent" / "new.yaml")]) == 2
    assert entry(["--init_config", str(tmp_path / "other.yaml"), "lora.r=3"]) == 2
    assert [line.split(";")[0].partition("init_config ")[2] for line in capsys.readouterr().err.splitlines()] == [
        f"{target} exists already and is not overwritten",
        f"{tmp_path / 'absent' / 'new.yaml'}: there is no folder {tmp_path / 'absent'}",
        "writes the defaults and goes alone",
    ]
    assert os.listdir(tmp_path) == ["new.yaml"]


WRONG_FILES = {
    "an unknown key, with its line": (
        "lora:\n  rank: 3\n",
        "line 2: there is no setting 'lora.rank'; did you mean lora.r",
    ),
    "a dotted key": ("lora.r: 4\n", "line 1: 'lora.r' stands for settings inside each other; write `lora: {r: ...}`"),
    "a key in the wrong section": ("lora: {lr: 1}\n", "no setting 'lora.lr'; did you mean lora.r"),
    "a wrong type": ("training:\n  lr: fast\n", "line 2: training.lr=fast is not accepted; give a number"),
    "no YAML": ("model: [\n", "is not valid YAML"),
    "a key twice": ("lora:\n  r: 3\n  r: 4\n", "is not valid YAML: .*duplicate key r"),
    "a scalar for a section": ("lora: true\n", "line 1: lora must hold `key: value` pairs"),
    "a list for the whole": ("- lora\n", "the file must hold `key: value` pairs"),
    "a contradiction": (
        "model: {tuning: frozen}\nlora: {enabled: true}\n",
        "my.yaml:2.* contradicts model.tuning=frozen",
    ),
    "a setting of another head": (
        "model: {type: eomt, num_heads: 4}\n",
        "num_heads=4 .* is a setting of model.type=m2f",
    ),
    "a reference that leads nowhere": (
        "model: {hidden_dim: '${lora.width}'}\n",
        "refers to a setting that cannot be read",
    ),
}
WRONG_WORDS = {
    "an unknown word": ("lora.rank=3", "There is no setting 'lora.rank'; did you mean lora.r"),
    "a word of another command": ("model.decoder_hidden_size=3", "There is no setting 'model.decoder_hidden_size'"),
    "a choice": ("training.scheduler=polly", "choose one of WarmupOneCycleLR, poly; did you mean poly"),
    "out of range": ("lora.lora_dropout=1.5", "lora.lora_dropout=1.5 is out of range; it must be between 0 and 0.99"),
    "a size of no backbone": ("model.backbone_size=huge", "dinov3 has tiny, small"),
    "a list of blocks": ("model.backbone_out_layers=[5,11,17]", "or four blocks in ascending order, of 0 to 23"),
    "no value": ("lora.r", "'lora.r' is not a setting; write key=value"),
    "a section": ("lora=3", "lora is a section; set one of lora.enabled, lora.r"),
    "dashes in front": (
        "--lora.r=3",
        "--lora.r is no flag of nnUNetv2_train_m2f; .* without dashes, .*mean lora.r=VALUE",
    ),
    "a flag with a slip": ("--devise", "--devise is no flag of nnUNetv2_train_m2f; .* did you mean -device"),
    "half a list": ("training.patch_size=[64,", "The value in 'training.patch_size=.*' is not valid YAML"),
    "a folder for a file": ("--m2f_config=.", "The configuration file . is a folder"),
    "more joint blocks than blocks": ("model.num_joint_blocks=30 model.type=eomt", "must be between 1 and 24"),
    "a file that is not there": ("--m2f_config=absent.yaml", "The configuration file absent.yaml does not exist"),
    "a trainer of another kind": ("-tr=nnUNetTrainer", "-tr nnUNetTrainer does not take the settings"),
}


def error_of(capsys, *words: str) -> str:
    assert run_training_m2f.run_training_entry(["777", "2d", "0", "-device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.usefixtures("no_folders")
@pytest.mark.parametrize("words", [["lora.r", "4"], ["lora"], ["lora.r:4"]])
def test_a_setting_in_the_place_of_the_dataset_is_not_taken_for_one(capsys, words):
    assert run_training_m2f.run_training_entry(["--print_config", *words]) == 2
    assert f"{words[0]!r} stands where the dataset does" in capsys.readouterr().err


@pytest.mark.usefixtures("no_folders")
@pytest.mark.parametrize("words", [["lora.r=3"], ["--print_config"], ["--m2f_config", "my.yaml"]])
def test_the_training_command_of_nnunet_names_those_that_take_settings(capsys, words):
    assert run_training.run_training_entry(["777", "2d", "0", *words]) == 2
    assert re.search(r"takes no settings \(.*\); nnUNetv2_train_m2f, .* do", capsys.readouterr().err)


@pytest.mark.usefixtures("no_folders")
@pytest.mark.parametrize(("text", "message"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_ends_with_one_line_and_code_2(tmp_path, capsys, text, message):
    (tmp_path / "my.yaml").write_text(text)
    error = error_of(capsys, "--m2f_config", str(tmp_path / "my.yaml"))
    assert re.search(message, error), error


@pytest.mark.usefixtures("no_folders")
@pytest.mark.parametrize(("word", "message"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_a_wrong_word_ends_with_one_line_and_code_2(capsys, word, message):
    words = word.split("=") if word.startswith("-tr") else word.split(" ")
    error = error_of(capsys, *words)
    assert re.search(message, error), error


def test_fewer_queries_than_classes_end_with_one_line_and_code_2(fold, capsys):
    small = ["model.backbone_size=tiny", "model.pretrained=false", "model.hidden_dim=32", "model.num_encoder_layers=1"]
    error = error_of(capsys, *small, "model.num_queries=2")
    assert "model.num_queries=2 is below the number of classes, 3" in error


@pytest.mark.parametrize("name", ["mymodel", "segformer", "m2f"])
def test_the_training_command_of_nnunet_trains_with_the_defaults(fold, name):
    trainer = run_training.get_trainer_from_args("777", "2d", 0, f"nnUNetTrainer_{name}", device=torch.device("cpu"))
    assert trainer.config == load_config(trainer.config_class)


@pytest.mark.integration
def test_settings_are_printed_and_refused_before_anything_heavy_is_imported():
    program = (
        "import sys, time\nfrom nnunetv2.run.run_training_m2f import run_training_entry\n"
        "start = time.process_time()\n"
        "assert run_training_entry(['--print_config', 'lora.r=3']) == 0\n"
        "assert run_training_entry(['4', '2d', '0', 'lora.rank=3']) == 2\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)\n"
        "print(time.process_time() - start)"
    )
    without = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1.5  # 0.4 on a free core

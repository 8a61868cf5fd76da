"""The command `nnUNetv2_model_info`: which models it describes, what it prints, what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2.run.model_info import model_info_entry, parse_request
from nnunetv2.run.model_info_report import aligned
from tests.training.tiny_dataset import DATASET_JSON, NAME, make_trainer, tiny_plans, write_tiny_dataset

TINY = ["model.backbone_size=tiny", "model.pretrained=false", "model.decoder_hidden_size=16"]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def preprocessed(nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("nnUNet_results")
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def info(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """What the command says as JSON."""
    assert model_info_entry([*words, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_unet_of_the_plans_is_described_as_it_is_trained(preprocessed, capsys):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    (model,) = info(capsys, "777", "2d")["models"]
    trainer = make_trainer(nnUNetTrainer)
    trainer.initialize()
    parameters = sum(p.numel() for p in trainer.network.parameters())
    assert model["name"] == "nnUNetTrainer"
    assert (model["network"], model["configuration"], model["num_outputs"]) == ("PlainConvUNet", "2d", 3)
    assert (model["patch_size"], model["batch_size"], model["precision"]) == ([32, 32], 2, "fp16")
    assert model["total"]["parameters"] == model["total"]["trainable_parameters"] == parameters
    assert model["memory"]["optimizer"] == 4 * parameters  # momentum
    assert model["total"]["forward_flops"] == sum(part["forward_flops"] for part in model["parts"]) > 0


@pytest.mark.slow
def test_settings_decide_what_is_described(preprocessed, capsys, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("lora:\n  r: 4\ntraining:\n  precision: fp32\n")
    words = ["777", "2d", "-tr", "nnUNetTrainer_segformer", "--config", str(config), *TINY, "training.batch_size=3"]
    (model,) = info(capsys, *words)["models"]
    backbone = next(part for part in model["parts"] if part["name"] == "backbone")
    # r x (inputs + outputs) of qkv and proj in 4 blocks of width 128
    assert backbone["trainable_parameters"] == 4 * 4 * ((128 + 384) + (128 + 128))
    assert (model["batch_size"], model["precision"]) == (3, "fp32")
    assert model["memory"]["optimizer"] == 8 * model["total"]["trainable_parameters"]


@pytest.mark.slow
def test_models_are_compared_in_one_table(preprocessed, capsys):
    trainers = ["-tr", "nnUNetTrainer", "nnUNetTrainer_segformer"]
    flags = ["--patch_size", "64", "64", "--batch_size", "1", "--device_precision", "bf16"]
    assert model_info_entry(["777", "2d", *trainers, *TINY, *flags]) == 0
    text = capsys.readouterr().out
    table, unet, segformer = text.split("\n\nnnUNetTrainer")
    assert [line.split("  ")[0] for line in table.splitlines()[2:]] == [
        "nnUNetTrainer: PlainConvUNet",
        "nnUNetTrainer_segformer: SegFormerSegmentationModel",
    ]
    assert unet.startswith(": PlainConvUNet, 2d, patch 64 x 64, 1 in, 3 out, batch 1, bf16\n")
    assert [line.split("  ")[0] for line in segformer.splitlines()[4:8]] == [
        "backbone",
        "pyramid",
        "decode head",
        "total",
    ]


@pytest.mark.slow
def test_a_trained_model_is_described_by_its_folder_alone(preprocessed, capsys, tmp_path, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer

    (planned,) = info(capsys, "777", "2d", "-tr", "nnUNetTrainer_segformer", *TINY)["models"]
    trainer = make_trainer(nnUNetTrainer_segformer, segformer_overrides=TINY)
    folder = tmp_path / "nnUNetTrainer_segformer__nnUNetPlans__2d"
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    monkeypatch.delenv("nnUNet_preprocessed")
    (trained,) = info(capsys, "-m", str(folder))["models"]
    assert trained == {**planned, "name": folder.name}


def model_folder(results: Path, trainer) -> Path:
    folder = results / NAME / f"{type(trainer).__name__}__nnUNetPlans__2d"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder


@pytest.mark.slow
def test_heads_of_one_trainer_have_labels_of_their_own(preprocessed, capsys, tmp_path):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit

    def folder(place: str, head: str) -> str:
        trainer = make_trainer(nnUNetTrainer_vit, overrides=[f"model.head={head}", *TINY[:2]])
        return str(model_folder(tmp_path / place, trainer))

    assert model_info_entry(["-m", folder("first", "linear"), folder("second", "segdino"), "--batch_size", "1"]) == 0
    table = capsys.readouterr().out.split("\n\n")[0]
    name = f"{NAME}/nnUNetTrainer_vit__nnUNetPlans__2d: DenseViTNetwork"
    assert [line.split("  ")[0] for line in table.splitlines()[2:]] == [
        f"first/{name} (linear)",
        f"second/{name} (segdino)",
    ]


@pytest.mark.parametrize("is_named", [False, True])
def test_a_head_that_is_not_installed_is_named_with_its_file(preprocessed, capsys, tmp_path, monkeypatch, is_named):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit

    trainer = make_trainer(nnUNetTrainer_vit, overrides=TINY[:2])
    folder = model_folder(tmp_path, trainer)
    plans = json.loads((folder / "plans.json").read_text())
    arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments["head"] = {"name": "mine", "settings": {}, "file": "my_head.py", "sha256": "0"}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "fold_0").mkdir()
    (folder / "fold_0" / "config.yaml").write_text("model: {head: mine}\n")
    place = "a folder and name that in"
    if is_named:
        monkeypatch.setenv("nnUNet_extensions", str(tmp_path))
        place = f"{tmp_path}, named in"
    assert model_info_entry(["-m", str(folder)]) == 3
    assert capsys.readouterr().err.endswith(
        f"The model's head 'mine' is defined in a file of its author, my_head.py, which is not installed here; put the "
        f"file into {place} the environment variable nnUNet_extensions\n"
    )


def test_the_json_file_holds_what_is_printed(preprocessed, capsys, tmp_path):
    target = tmp_path / "info.json"
    assert model_info_entry([NAME, "2d", "--json", str(target)]) == 0
    assert capsys.readouterr().out.startswith("nnUNetTrainer: PlainConvUNet, 2d")
    assert json.loads(target.read_text()) == info(capsys, NAME, "2d")
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give either a dataset and a configuration, for example 4 2d, or model folders with -m"),
        (["777", "2d", "-m", "folder"], "Give either a dataset and a configuration"),
        (["777"], "Give the configuration too, for example: 777 2d"),
        (["777", "2d", "0"], "'0' is one word too many"),
        (["-m", "folder", "lora.r=4"], "A trained model has its trainer and settings; leave out -tr, --config"),
        (["777", "2d", "--patch_size", "64", "x"], "--patch_size is 'x'; give whole numbers from 1"),
        (["777", "2d", "--batch_size", "0"], "--batch_size is 0; give whole numbers from 1"),
        (["778", "2d"], "There is no dataset with id 778"),
        (["777", "3d"], "have no configuration '3d'; they have 2d"),
        (["777", "2d", "-p", "Other"], "There are no plans Other"),
        (["777", "2d", "-tr", "nnUNetTrainer_m2"], "did you mean nnUNetTrainer_m2f"),
        (["777", "2d", "lora.r=4"], "nnUNetTrainer takes no settings; leave out --config and key=value"),
        (["777", "2d", "-tr", "nnUNetTrainer_m2f", "lora.rank=4"], "There is no setting 'lora.rank'"),
        (["777", "2d", "--patch_size", "64", "64", "64"], "--patch_size has 3 numbers; configuration 2d needs 2"),
        (["777", "2d", "--patch_size", "50", "50"], "The network cannot take patches of 50x50"),
        (["-m", "absent"], "'absent' is not a model folder"),
        (["-m", "a__b__2d"], "a__b__2d has no plans.json and no dataset.json"),
    ],
)
def test_what_cannot_be_told_ends_with_one_line_and_code_2(preprocessed, capsys, words, message):
    assert model_info_entry(words) == 2
    error = capsys.readouterr().err
    # A relative folder is told by its whole path.
    assert re.sub(r"'/[^']*/", "'", error).count(message) == 1
    assert error.count("\n") == 1


def test_settings_may_stand_anywhere():
    line = "4 lora.r=2 2d -tr A B model.tuning=full --patch_size 8 9 training.lr=1 -p P"
    request = parse_request(line.split())
    assert (request.dataset, request.configuration, request.trainers) == ("4", "2d", ("A", "B"))
    assert sorted(request.overrides) == ["lora.r=2", "model.tuning=full", "training.lr=1"]
    assert (request.patch_size, request.plans_identifier) == ((8, 9), "P")


def test_columns_are_aligned():
    assert aligned([("part", "size"), ("a b c", "1.0"), ("d", "10.0")]) == (
        "part   size\n-----------\na b c   1.0\nd      10.0"
    )


def test_help_does_not_import_torch():
    program = (
        "import sys\nfrom nnunetv2.run.model_info import build_parser\n"
        "text = build_parser().format_help()\nassert 'key=value' in text\n"
        "assert not {'torch', 'numpy', 'omegaconf', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_configuration_in_three_dimensions_is_described(nnunet_folders, capsys):
    folder = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    plans = tiny_plans()
    configuration = plans["configurations"]["2d"]
    configuration["patch_size"] = [8, 16, 16]
    text = json.dumps(configuration).replace("Conv2d", "Conv3d").replace("InstanceNorm2d", "InstanceNorm3d")
    configuration = json.loads(text)
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments |= {"kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    plans["configurations"] = {"3d_fullres": configuration}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (model,) = info(capsys, "777", "3d_fullres")["models"]
    first = 8 * 16 * 16 * 4 * 27
    second = 4 * 8 * 8 * 4 * 8 * 27
    third = 2 * 4 * 4 * 8 * 8 * 27
    assert model["parts"][0]["forward_flops"] == 2 * (first + second + third)

"""Exported archives: upstream's layout, what is refused or left out, LoRA, private folders."""

from __future__ import annotations

import inspect
import json
import shlex
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from dinov3.utils.atomic_files import read_json
from dinov3.utils.yaml_config import load_config
from nnunetv2.errors import DataError, UsageError
from nnunetv2.inference.model_loading import load_trained_model
from nnunetv2.model_sharing import entry_points, model_download, model_export, model_import
from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.model_sharing.private_text import shareable_text
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer
from nnunetv2.training.nnUNetTrainer.segformer_config import SegFormernnUNetConfig
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint
from tests.recorded.sharing_cases import CALLS, DATASET, write_results
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

RECORDED = Path(__file__).parents[1] / "recorded" / "model_sharing.json"
MODEL_2D = f"{DATASET}/nnUNetTrainer__nnUNetPlans__2d"
ONE_FOLD = {"configurations": ["2d"], "folds": [0]}


@pytest.fixture
def results(nnunet_folders: dict[str, Path]) -> Path:
    return write_results(nnunet_folders["nnUNet_results"])


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return sorted(archive.namelist())


def upstreams_names_and_ours(call: str) -> list[str]:
    """Upstream looks for the instructions under a name that they do not have, and leaves out the files they name."""
    names = set(json.loads(RECORDED.read_text())[call]) | {f"{DATASET}/inference_instructions.txt"}
    merged = {name.rpartition("/")[0] for name in names if "/crossval_results_folds_" in name}
    return sorted(names | {f"{folder}/{name}" for folder in merged for name in ("plans.json", "dataset.json")})


@pytest.mark.oracle
@pytest.mark.parametrize("call", CALLS)
def test_archives_hold_upstreams_files_and_what_the_instructions_need(call, results, tmp_path):
    export_pretrained_model(DATASET, tmp_path / "model.zip", **CALLS[call])
    assert names_in(tmp_path / "model.zip") == upstreams_names_and_ours(call)


def test_folders_of_this_machine_stay_here(results, tmp_path, nnunet_folders, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    fold = results / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    debug = {"hostname": socket.gethostname() + "-x", "folder": str(fold), "file": "/home/somebody/weights.pth"}
    debug["of_another"] = "/home/somebody_else/weights.pth"
    (fold / "debug.json").write_text(json.dumps(debug))
    (fold / "my_config.yaml").write_text(f"checkpoint: {nnunet_folders['nnUNet_raw']}/weights.pth\n")
    content = load_checkpoint(fold / "checkpoint_final.pth")
    content["init_args"]["m2f_config_path"] = "/home/somebody/my.yaml"
    content["trainer_config"] = {"model": {"checkpoint": "/home/somebody/weights.pth"}}
    save_checkpoint(content, fold / "checkpoint_final.pth")
    export_pretrained_model(DATASET, tmp_path / "model.zip", **ONE_FOLD)
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    private = (str(tmp_path), "/home/somebody/", socket.gethostname() + "-x")
    for path in (tmp_path / "unpacked").rglob("*"):
        if path.is_file() and path.suffix != ".pth":
            assert not any(text in path.read_text() for text in private), path
    unpacked = tmp_path / "unpacked" / MODEL_2D / "fold_0"
    assert read_json(unpacked / "debug.json") == {
        "hostname": "",
        "folder": f"$nnUNet_results/{MODEL_2D}/fold_0",
        "file": "~/weights.pth",
        "of_another": "/home/somebody_else/weights.pth",
    }
    assert (unpacked / "my_config.yaml").read_text() == "checkpoint: $nnUNet_raw/weights.pth\n"
    summary = read_json(unpacked / "validation" / "summary.json")
    assert summary["prediction_file"] == f"$nnUNet_results/{MODEL_2D}/fold_0/validation/case_1"
    exported = load_checkpoint(unpacked / "checkpoint_final.pth")
    assert exported["init_args"]["m2f_config_path"] == "~/my.yaml"
    assert exported["trainer_config"]["model"]["checkpoint"] == "~/weights.pth"
    for name, value in content["network_weights"].items():
        assert torch.equal(exported["network_weights"][name], value)


def test_a_checkpoint_without_anything_private_is_exported_byte_by_byte(results, tmp_path):
    export_pretrained_model(DATASET, tmp_path / "model.zip", **ONE_FOLD)
    checkpoint = Path(f"{MODEL_2D}/fold_0/checkpoint_final.pth")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.read(str(checkpoint)) == (results.parent / checkpoint).read_bytes()


def test_commands_in_an_archive_work_where_folders_have_spaces(tmp_path, monkeypatch):
    folders = {"/data/it's mine": "$nnUNet_results", "/home/jo": "~"}
    words = ["nnUNetv2_apply_postprocessing", "-i", "two words", "-pp_pkl_file", "/data/it's mine/A b/$x.pkl"]
    text = f"Read this in /home/jo\n{shlex.join([*words, '-plans_json', '/home/jo/p.json'])}\nnnUNetv2_ it's\n"
    (tmp_path / "inference_instructions.txt").write_text(text)
    sentence, command, other = shareable_text(tmp_path / "inference_instructions.txt", folders).splitlines()
    assert (sentence, other) == ("Read this in ~", "nnUNetv2_ it's")
    environment = {"nnUNet_results": "/new place", "HOME": "/home/al ice"}
    shell = ["bash", "-c", f"printf '%s\\n' {command}"]
    printed = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == [*words[:-1], "/new place/A b/$x.pkl", "-plans_json", "/home/al ice/p.json"]


def test_a_stage_that_cannot_predict_alone_is_warned_of(results, tmp_path, caplog):
    plans_file = results / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "plans.json"
    plans = read_json(plans_file)
    plans["configurations"]["3d_fullres"]["previous_stage"] = "2d"
    plans_file.write_text(json.dumps(plans))
    export_pretrained_model(DATASET, tmp_path / "model.zip", configurations=["2d", "3d_fullres"], folds=[0])
    assert not caplog.messages
    export_pretrained_model(DATASET, tmp_path / "model.zip", configurations=["3d_fullres"], folds=[0])
    assert "cannot predict with it alone; export both (-c 2d 3d_fullres)" in caplog.text


MISSING = {
    "configuration": (
        {"configurations": ["2d", "3d_lowres"], "folds": [0]},
        r"no trained model .*3d_lowres \(Dataset990_TinyModels has nnUNetTrainer__nnUNetPlans__2d, .*--not_strict",
    ),
    "fold": (
        {"configurations": ["2d"], "folds": [0, 4]},
        r"no .*fold_4 \(the model has fold_0\); choose others \(-f\)",
    ),
    "checkpoint": (
        ONE_FOLD | {"save_checkpoints": ["checkpoint_final.pth", "checkpoint_latest.pth"]},
        r"fold_0 has no checkpoint_latest.pth \(it has checkpoint_best.pth, checkpoint_final.pth\)",
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_refused_or_left_out(what, results, tmp_path):
    arguments, message = MISSING[what]
    with pytest.raises(UsageError, match=message):
        export_pretrained_model(DATASET, tmp_path / "model.zip", **arguments)
    assert not list(tmp_path.glob("*.zip"))
    export_pretrained_model(DATASET, tmp_path / "model.zip", strict=False, **arguments)
    assert names_in(tmp_path / "model.zip") == upstreams_names_and_ours("one_fold")


def test_a_fold_that_was_not_validated_is_refused_or_exported_without(results, tmp_path):
    (results / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "validation" / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"fold_0 was not validated"):
        export_pretrained_model(DATASET, tmp_path / "model.zip", **ONE_FOLD)
    export_pretrained_model(DATASET, tmp_path / "model.zip", strict=False, **ONE_FOLD)
    assert f"{MODEL_2D}/fold_0/validation/summary.json" not in names_in(tmp_path / "model.zip")


def test_nothing_to_export_is_an_error_also_where_gaps_are_allowed(results, tmp_path):
    with pytest.raises(UsageError, match="There is nothing to export of Dataset990_TinyModels, nnUNetTrainer_other"):
        export_pretrained_model(DATASET, tmp_path / "model.zip", trainer="nnUNetTrainer_other", strict=False)


def test_a_failed_export_leaves_the_older_archive(results, tmp_path):
    output = tmp_path / "model.zip"
    output.write_text("older")
    checkpoint = results / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"checkpoint_final.pth is damaged"):
        export_pretrained_model(DATASET, output, **ONE_FOLD)
    assert output.read_text() == "older"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_folder_of_the_archive_must_be_there(results, tmp_path):
    with pytest.raises(UsageError, match=r"There is no folder .*nowhere for the zip file"):
        export_pretrained_model(DATASET, tmp_path / "nowhere" / "model.zip", **ONE_FOLD)
    with pytest.raises(UsageError, match="is a folder; give the name of the zip file"):
        export_pretrained_model(DATASET, tmp_path, **ONE_FOLD)


def test_command_exports_a_dataset_by_its_number(results, tmp_path):
    words = ["-d", "990", "-o", str(tmp_path / "model.zip"), "-f", "0", "--not_strict"]
    assert export_pretrained_model_entry(words) == 0
    assert {name.split("/")[1] for name in names_in(tmp_path / "model.zip") if "__" in name.split("/")[1]} == {
        "nnUNetTrainer__nnUNetPlans__2d",
        "nnUNetTrainer__nnUNetPlans__3d_fullres",
    }


def test_metrics_are_exported_without_folders(results, tmp_path):
    fold = results / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    line = {"type": "run", "command": f"nnUNetv2_train 990 2d 0 -pretrained_weights {results}/weights.pth"}
    (fold / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (fold / "metrics.csv").write_text("epoch,train_loss\n0,0.5\n")
    export_pretrained_model(DATASET, tmp_path / "model.zip", **ONE_FOLD)
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.read(f"{MODEL_2D}/fold_0/metrics.csv") == b"epoch,train_loss\n0,0.5\n"
        exported = json.loads(archive.read(f"{MODEL_2D}/fold_0/metrics.jsonl"))
    assert exported["command"] == f"nnUNetv2_train 990 2d 0 -pretrained_weights $nnUNet_results/{DATASET}/weights.pth"


@pytest.fixture
def lora_model(nnunet_folders: dict[str, Path], seeded: int) -> Path:
    """The folder of a SegFormer with adapters that change its predictions."""
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    small = ["model.backbone_size=tiny", "model.pretrained=false", "model.tuning=lora", "model.decoder_hidden_size=16"]
    trainer = make_trainer(nnUNetTrainer_segformer, segformer_overrides=small)
    trainer.on_train_start()
    with torch.no_grad():
        for name, parameter in trainer.network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    return Path(trainer.output_folder_base)


def export_and_unpack(model: Path, folder: Path, **arguments: bool) -> Path:
    trainer = model.name.split("__")[0]
    archive = folder / "model.zip"
    arguments = {"configurations": ["2d"], "trainer": trainer, "folds": [0], "strict": False, **arguments}
    export_pretrained_model(model.parent.name, archive, **arguments)
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder / "unpacked")
    return folder / "unpacked" / model.parent.name / model.name


@pytest.mark.slow
def test_merged_adapters_leave_the_logits_as_they_were(lora_model, tmp_path):
    merged = export_and_unpack(lora_model, tmp_path, merge_lora=True)
    image = torch.randn(1, 1, 40, 52)
    logits = []
    for folder in (lora_model, merged):
        network = load_trained_model(folder, [0], "checkpoint_final.pth").network.eval()
        with torch.no_grad():
            logits.append(network(image))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=0)
    checkpoint = load_checkpoint(merged / "fold_0" / "checkpoint_final.pth")
    before = load_checkpoint(lora_model / "fold_0" / "checkpoint_final.pth")
    assert not any("lora" in name for name in checkpoint["network_weights"])
    layer = "encoder.vit.blocks.0.attn.qkv"
    change = checkpoint["network_weights"][f"{layer}.weight"] - before["network_weights"][f"{layer}.base_layer.weight"]
    assert change.abs().max() > 0.1


@pytest.mark.slow
def test_everything_that_describes_a_merged_model_agrees(lora_model, tmp_path):
    merged = export_and_unpack(lora_model, tmp_path, merge_lora=True)
    checkpoint = load_checkpoint(merged / "fold_0" / "checkpoint_final.pth")
    for plans in (read_json(merged / "plans.json"), checkpoint["init_args"]["plans"]):
        arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        assert arguments["tuning"] == "full"
        assert "lora" not in arguments
    config = load_config(SegFormernnUNetConfig, merged / "fold_0" / "segformer_config.yaml")
    assert (config.model.tuning, config.lora.enabled) == ("full", False)
    assert checkpoint["trainer_config"]["model"]["tuning"] == "full"
    assert not {"optimizer_state", "grad_scaler_state", "lr_scheduler_state"} & set(checkpoint)
    before = read_json(lora_model / "plans.json")["configurations"]["2d"]["architecture"]["arch_kwargs"]
    assert before["tuning"] == "lora"  # the model itself stays as it is
    described = {"debug.json", "network_architecture.txt"}  # the network in training, with its adapters
    assert described <= {path.name for path in (lora_model / "fold_0").iterdir()}
    assert not described & {path.name for path in (merged / "fold_0").iterdir()}


@pytest.mark.slow
def test_a_trainer_made_with_the_arguments_in_a_merged_checkpoint_takes_its_weights(lora_model, tmp_path):
    merged = export_and_unpack(lora_model, tmp_path, merge_lora=True) / "fold_0" / "checkpoint_final.pth"
    arguments = load_checkpoint(merged)["init_args"]
    trainer = nnUNetTrainer_segformer(**arguments)
    trainer.output_folder_base = str(tmp_path / "other")
    with pytest.raises(UsageError, match="exported without the state of its optimiser"):
        trainer.load_checkpoint(str(merged))
    trainer.num_epochs = 1
    trainer.load_checkpoint(str(merged))  # to validate what is trained to the end


def test_a_model_without_adapters_is_exported_as_it_is(results, tmp_path, caplog):
    caplog.set_level("INFO")
    export_pretrained_model(DATASET, tmp_path / "model.zip", merge_lora=True, **ONE_FOLD)
    assert "It has no LoRA adapters to merge" in caplog.text


@pytest.mark.slow
def test_the_state_of_the_optimiser_may_stay_here(lora_model, tmp_path):
    small = export_and_unpack(lora_model, tmp_path, without_optimizer=True)
    checkpoint = load_checkpoint(small / "fold_0" / "checkpoint_final.pth")
    before = load_checkpoint(lora_model / "fold_0" / "checkpoint_final.pth")
    of_training = {"optimizer_state", "grad_scaler_state", "lr_scheduler_state", "trained_with"}
    assert before.keys() - checkpoint.keys() == of_training
    for name, value in before["network_weights"].items():
        assert torch.equal(checkpoint["network_weights"][name], value)


@pytest.mark.oracle
def test_functions_and_flags_are_upstreams(oracle_recorded):
    api = json.loads((oracle_recorded / "api.json").read_text())
    for module in (entry_points, model_export, model_import, model_download):
        for name, parameters in api[module.__name__].items():
            ours = inspect.signature(getattr(module, name)).parameters
            theirs = parameters.split(", ") if parameters else []
            assert list(ours)[: len(theirs)] == theirs
            assert all(p.default is not inspect.Parameter.empty for p in list(ours.values())[len(theirs) :])
    cli = json.loads((oracle_recorded / "cli.json").read_text())
    for command, parser, added in (
        ("nnUNetv2_export_model_to_zip", entry_points.build_export_parser(), {"--merge_lora", "--without_optimizer"}),
        ("nnUNetv2_install_pretrained_model_from_zip", entry_points.build_install_parser(), {"--overwrite"}),
        (
            "nnUNetv2_download_pretrained_model_by_url",
            entry_points.build_download_parser(),
            {"--overwrite", "--sha256", "--allow_http", "--max_gb"},
        ),
    ):
        actions = {(action.option_strings or [action.dest])[0]: action for action in parser._actions[1:]}
        assert set(actions) == {argument["flags"][0] for argument in cli[command]["args"]} | added
        for argument in cli[command]["args"]:
            action = actions[argument["flags"][0]]
            default = list(action.default) if isinstance(action.default, tuple) else action.default
            assert (default, action.required) == (argument["default"], argument["required"])
            assert ("flag" if action.nargs == 0 else action.nargs) == argument["nargs"]

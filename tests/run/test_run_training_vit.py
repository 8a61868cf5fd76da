"""The command that trains any head: heads in its help, templates per head, settings of the chosen head and loss."""

from __future__ import annotations

import importlib
import re
import shutil

import pytest

from nnunetv2.run import run_training_vit
from nnunetv2.training.nnUNetTrainer.any_head_config import AnyHeadConfig
from nnunetv2.utilities import extensions
from tests.training.tiny_dataset import write_tiny_dataset

HEADS = extensions.names("head")
entry = run_training_vit.run_training_entry


def test_the_help_lists_every_head_with_a_line_about_it(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        entry(["-h"])
    text = capsys.readouterr().out
    for name in HEADS:
        assert f"  {name:<18}{extensions.find('head', name).summary}\n" in text


@pytest.mark.parametrize("head", HEADS)
def test_a_template_of_each_head_holds_its_defaults(head, tmp_path, capsys):
    path = tmp_path / "new.yaml"
    assert entry(["--init_config", str(path), f"model.head={head}"]) == 0
    assert capsys.readouterr().out.endswith(f"use it by --config {path}\n")
    config, sources = AnyHeadConfig.load(path)
    assert config.model.head == head
    assert config == AnyHeadConfig.load(None, [f"model.head={head}"])[0]
    assert sources["model.head"].place.startswith(f"{path}:")


@pytest.mark.parametrize("head", HEADS)
def test_the_settings_in_force_can_be_read_back(head, tmp_path, capsys):
    words = [f"model.head={head}", "training.lr=0.003"]
    assert entry(["--print_config", *words]) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert AnyHeadConfig.load(path)[0] == AnyHeadConfig.load(None, words)[0]


def test_a_file_says_which_head_and_a_word_overrides_it(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("model: {head: eomt, backbone_size: tiny}\n")
    assert AnyHeadConfig.load(path)[0].model.head == "eomt"
    assert AnyHeadConfig.load(path, ["model.head=upernet"])[0].model.head == "upernet"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.head=segfomer"], "There is no head 'segfomer'; registered are .*; did you mean segformer?"),
        (
            ["model.head=segformer", "model.num_queries=3"],
            "There is no setting 'model.num_queries'.*is a setting of eomt, m2f, pmt, and model.head is segformer",
        ),
        (
            ["model.head=segformer", "m2f_train.match_on_device=true"],
            "There is no setting 'm2f_train.match_on_device' - m2f_train.match_on_device is a setting of "
            "training.loss=mask_classification, and the loss of model.head=segformer is dice_ce$",
        ),
        (["model.head=m2f", "m2f_train.match_on_devise=true"], "did you mean m2f_train.match_on_device[?]$"),
        (["model.head=segformer", "training.loss=mask_classification"], "does not fit the head, which classifies"),
        (
            ["model.head=eomt", "training.loss=dice_ce"],
            "does not fit the head, which proposes masks; choose one of mask",
        ),
        (["training.loss=dise"], "There is no loss 'dise'"),
        (["model.head=eomt", "model.num_joint_blocks=25"], "must be between 1 and 24, the blocks of dinov3 large"),
    ],
)
def test_wrong_choices_are_one_line(words, message, capsys):
    assert entry(["--print_config", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_settings_of_a_fold_are_found_where_copied_plans_put_it(nnunet_folders, capsys):
    dataset = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    shutil.copyfile(dataset / "nnUNetPlans.json", dataset / "Copy.json")  # with nnUNetPlans as plans_name
    fold = nnunet_folders["nnUNet_results"] / dataset.name / "nnUNetTrainer_vit__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "config.yaml").write_text("model: {head: linear}\n")
    assert entry(["777", "2d", "0", "-p", "Copy", "--c", "--print_config"]) == 0
    assert re.search(r"head: linear +# .*config.yaml:1", capsys.readouterr().out)


COMMANDS = ("vit", "m2f", "segformer", "nodeepsupervision_mymodel")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("more", [[], ["--fast_dev_run"], ["--c"], ["--val"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["777", "2d", "7"], "there is no fold 7: the folds are 0, 1, 2, 3, 4 and all"),
        (["778", "2d", "0"], "There is no dataset with id 778"),
        (["777", "2dx", "0"], "have no configuration '2dx'; they have 2d"),
        (["777", "2d", "0", "-p", "Other"], "There are no plans Other"),
    ],
)
def test_what_is_not_there_is_found_before_weights_are(
    nnunet_folders, monkeypatch, capsys, command, more, words, message
):
    folder = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    find_weights = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit.find_weights"
    monkeypatch.setattr(find_weights, lambda *_, **__: pytest.fail("weights were looked for"))
    module = importlib.import_module(f"nnunetv2.run.run_training_{command}")
    before = sorted(folder.iterdir())
    assert module.run_training_entry([*words, *more, "-device", "cpu", "model.backbone_size=small"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
    assert list(nnunet_folders["nnUNet_results"].iterdir()) == []


def test_a_template_takes_the_choices_of_head_and_loss_alone(tmp_path, capsys):
    assert entry(["--init_config", str(tmp_path / "new.yaml"), "model.head=eomt", "lora.r=3"]) == 2
    assert "goes alone or with model.head=NAME and training.loss=NAME" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

"""Presets: settings files of the package, which commands and studies take by name."""

from __future__ import annotations

from pathlib import Path

import pytest

import nnunetv2.configs
from nnunetv2.errors import UsageError
from nnunetv2.run import run_training_m2f, run_training_segformer, run_training_vit
from nnunetv2.run.run_training_vit import COMMAND
from nnunetv2.utilities.presets import preset_names, settings_file

FOLDER = Path(nnunetv2.configs.__path__[0])
GENERAL, M2F = preset_names(), preset_names("m2f_")


def test_every_file_is_a_preset_of_one_command_or_a_template():
    files = {path.stem for path in FOLDER.glob("*.yaml")}
    assert set(GENERAL).isdisjoint(M2F)
    assert files - {*GENERAL, *M2F} == {"study", "m2f_default", "segformer_default", "vit_default"}


@pytest.mark.parametrize("name", GENERAL)
def test_a_preset_is_printed_with_its_name_as_the_source(name, capsys):
    assert run_training_vit.run_training_entry(["--print_config", "--config", name]) == 0
    assert f"{name}.yaml:" in capsys.readouterr().out


@pytest.mark.parametrize("name", GENERAL)
def test_a_preset_trains_the_released_weights_by_default_and_takes_others(name):
    load = COMMAND.schema().load
    assert load(settings_file(name), [])[0].model.pretrained
    config, _ = load(settings_file(name), ["model.checkpoint=weights.pth", "training.lr=2e-5"])
    assert (config.model.checkpoint, config.training.lr) == ("weights.pth", 2e-5)


def test_presets_of_mask2former_belong_to_its_command():
    assert "m2f_2048" in M2F
    arguments = COMMAND.trainer_arguments, run_training_m2f.COMMAND.trainer_arguments
    general, m2f = (
        lambda name, make=make, tr=tr: make(4, "2d", 0, tr, "nnUNetPlans", False, name, [])
        for make, tr in zip(arguments, ("nnUNetTrainer_vit", "nnUNetTrainer_m2f"), strict=True)
    )
    assert m2f("m2f_2048")["m2f_config_path"] == str(FOLDER / "m2f_2048.yaml")
    with pytest.raises(
        UsageError,
        match="no settings file or preset 'm2f_2048'; presets: cells, .*; nnUNetv2_train_m2f --m2f_config has it",
    ):
        general("m2f_2048")


def test_a_file_comes_before_the_preset_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings_file("cells") == str(FOLDER / "cells.yaml")
    (tmp_path / "cells").write_text("model: {head: dpt}\n")
    assert settings_file("cells") == "cells"
    (tmp_path / "cells.yaml").write_text("model: {head: dpt}\n")
    assert settings_file("cells.yaml") == "cells.yaml"


def test_the_name_of_a_presets_file_is_answered_with_that_of_the_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"There is no file cells\.yaml in this folder; the preset is called cells"):
        settings_file("cells.yaml")
    for other in ("mine.yaml", "configs/cells.yaml"):  # reading them says that they do not exist
        assert settings_file(other) == other


@pytest.mark.parametrize("name", ["cell", "study", "vit_default", ""])
def test_names_of_nothing_are_refused_with_the_presets(name):
    with pytest.raises(UsageError, match=rf"no settings file or preset '{name}'; presets: cells, "):
        settings_file(name)


def test_a_preset_of_another_command_is_answered_with_that_command():
    with pytest.raises(UsageError, match=r"no settings file or preset 'cells'; nnUNetv2_train_vit --config has it$"):
        run_training_segformer.COMMAND.trainer_arguments(4, "2d", 0, "nnUNetTrainer_segformer", "p", False, "cells", [])


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (run_training_vit, "YAML file of settings, or a preset: cells,"),
        (run_training_segformer, "YAML file of settings ("),
    ],
)
def test_the_help_lists_the_presets(module, says, capsys):
    with pytest.raises(SystemExit):
        module.run_training_entry(["-h"])
    assert says in " ".join(capsys.readouterr().out.split())

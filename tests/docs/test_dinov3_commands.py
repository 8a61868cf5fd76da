"""The commands of docs/dinov3.md: all have settings that exist, and those for trying it out run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dinov3.eval.segmentation import dataset_check, run
from dinov3.eval.segmentation.config import load_segmentation_config, shipped_configs
from dinov3.utils.yaml_config import save_config
from tests.dinov3.tiny_ade20k_folder import make_tiny_ade20k_folder

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "dinov3.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(command)
    for command in re.findall(r"^    ((?:python|torchrun) .*)$", TEXT.replace("\\\n", " "), flags=re.MULTILINE)
]


def words_of(command: list[str]) -> list[str]:
    return command[command.index("-m") + 2 :]


def test_the_commands_are_found():
    assert len(COMMANDS) == 9
    assert {command[command.index("-m") + 1] for command in COMMANDS} == {run.__name__, dataset_check.__name__}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_settings_of_a_command_exist(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "tiny"):
        Path(folder).mkdir()
        save_config(load_segmentation_config(["config=config-tiny"]), Path(folder) / "segmentation_config.yaml")
    config = load_segmentation_config(words_of(command))
    assert config.model is not None


@pytest.mark.slow
def test_the_commands_for_trying_it_out_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tiny_ade20k_folder(Path("cells"))
    commands = [words_of(command) for command in COMMANDS if "tiny" in " ".join(command)]
    assert [dataset_check.main(commands[0]), run.main(commands[1]), run.main(commands[2])] == [0, 0, 0]
    assert len(list(Path("tiny/evaluation/overlays").iterdir())) == 3
    table = TEXT.partition("## What is in output_dir")[2].partition("##")[0]
    written = {path.name for folder in ("tiny", "tiny/evaluation") for path in Path(folder).iterdir()}
    assert written - {"evaluation", "overlays", "results-semantic-segmentation.json"} <= set(
        re.findall(r"`([\w.-]+)`", table)
    )


def test_the_table_of_files_is_complete():
    assert [f"`{name}`" in TEXT for name in shipped_configs()] == [True] * len(shipped_configs())


def test_the_python_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names = {}
    exec(compile(example, "docs/dinov3.md", "exec"), names)
    assert [tuple(level.shape) for level in names["maps"]] == [(1, 384, 4, 6)] * 4
    assert names["outputs"]["pred_logits"].shape == (1, 100, 4)
    assert names["outputs"]["pred_masks"].shape == (1, 100, 16, 24)

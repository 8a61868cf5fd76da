"""All console commands: upstream's are here with their flags and defaults, help is quick, wrong flags are refused.

`recorded/cli.json` holds the flags of upstream 2.8.1; `recorded/make_cli.py` made it.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dinov3.utils.atomic_files import read_json
from tests.conftest import REPOSITORY
from tests.recorded.command_flags import describe_flags, parser_of

UPSTREAM = read_json(Path(__file__).parent / "recorded" / "cli.json")
LONGEST_HELP = 0.5  # CPU seconds, user and system
CONFIGURED = ("nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps")  # environment variables that change defaults

# Types that convert or check more than upstream's, and why: upstream's type and the name of ours.
OTHER_TYPES = {
    ("str", "_fold"): "a fold is a number or all; anything else is refused",
    ("int", "_fold_of_crossvalidation"): "says what is accepted instead of `invalid int value`",
}

# Flags that upstream requires and this package does not.
OPTIONAL = {
    ("nnUNetv2_evaluate_folder", "-pfile"),  # folders of other programs have no plans
    ("nnUNetv2_evaluate_simple", "-l"),  # --regions names labels
}

# Flags that upstream does not have. A new one is entered here, and in docs/migrating.md.
SPLITS = {"--num_folds", "--group_by", "--allow_leak"}
EVALUATION = {"--metrics", "--regions", "--classes", "--primary", "--among", "-fov"}
ADDED = {
    "nnUNetv2_download_pretrained_model_by_url": {"--overwrite", "--sha256", "--allow_http", "--max_gb"},
    "nnUNetv2_evaluate_folder": {"--allow_geometry_mismatch", *EVALUATION},
    "nnUNetv2_evaluate_simple": {"--allow_geometry_mismatch", *EVALUATION},
    "nnUNetv2_export_model_to_zip": {"--merge_lora", "--without_optimizer"},
    "nnUNetv2_extract_fingerprint": {"--allow_geometry_mismatch"},
    "nnUNetv2_find_best_configuration": {"-m"},
    "nnUNetv2_install_pretrained_model_from_zip": {"--overwrite"},
    "nnUNetv2_plan_and_preprocess": {"--allow_geometry_mismatch", *SPLITS},
    "nnUNetv2_plan_experiment": SPLITS,
    "nnUNetv2_predict": {"-num_gpus"},
    "nnUNetv2_predict_from_modelfolder": {"-num_gpus"},
    "nnUNetv2_train": {
        "--allow_config_change",
        "--fast_dev_run",
        "--force",
        "--num_epochs",
        "--num_iterations_per_epoch",
        "--num_val_iterations_per_epoch",
        "--precision",
        "--seed",
        "-augmentation_device",
        *SPLITS,
    },
}


def console_scripts() -> dict[str, str]:
    """Commands and their `module:function`, as pyproject.toml has them."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    section = re.search(r"^\[project\.scripts\]\n(.*?)^\[", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'^(\S+) = "(\S+)"$', section[1], re.MULTILINE))


SCRIPTS = console_scripts()


@pytest.fixture(autouse=True)
def _no_configured_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in CONFIGURED:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def flags(command: str) -> list[dict[str, Any]]:
    assert command in SCRIPTS, f"{command} is no console script in pyproject.toml"
    return describe_flags(parser_of(SCRIPTS[command]))


def is_positional(flag: dict[str, Any]) -> bool:
    return not flag["flags"][0].startswith("-")


def flag_differences(theirs: dict[str, Any], ours: dict[str, Any] | None) -> list[str]:
    name = theirs["flags"][0]
    if ours is None:
        return [f"{name} is missing"]
    same_type = ours["type"] == theirs["type"] or (theirs["type"], ours["type"]) in OTHER_TYPES
    found = [] if same_type else [f"{name}: type is {ours['type']}, upstream's {theirs['type']}"]
    for key in ("flags", "nargs", "default", "required", "choices"):
        if ours[key] != theirs[key] and not (key == "flags" and set(theirs[key]) < set(ours[key])):
            found.append(f"{name}: {key} is {ours[key]!r}, upstream's {theirs[key]!r}")
    return found


@pytest.mark.parametrize("command", UPSTREAM)
def test_flags_are_upstreams(command: str, flags: list[dict[str, Any]]) -> None:
    by_spelling = {spelling: flag for flag in flags for spelling in flag["flags"]}
    for flag in flags:
        if (command, flag["flags"][0]) in OPTIONAL:
            assert not flag["required"]
            flag["required"] = True
    found = [
        difference
        for theirs in UPSTREAM[command]
        for difference in flag_differences(theirs, by_spelling.get(theirs["flags"][0]))
    ]
    assert not found, "\n" + "\n".join(found)


def test_differences_of_flags_are_found() -> None:
    """The comparison itself."""
    theirs = {"flags": ["-np"], "nargs": None, "type": "int", "default": 8, "required": False, "choices": None}
    assert flag_differences(theirs, {**theirs, "flags": ["-np", "--num_processes"]}) == []
    assert flag_differences(theirs, None) == ["-np is missing"]
    for changed in ({"nargs": "+"}, {"type": None}, {"default": 4}, {"required": True}, {"flags": ["-n"]}):
        assert len(flag_differences(theirs, {**theirs, **changed})) == 1


@pytest.mark.parametrize("command", UPSTREAM)
def test_words_without_flag_are_upstreams_in_their_order(command: str, flags: list[dict[str, Any]]) -> None:
    theirs = [flag["flags"] for flag in UPSTREAM[command] if is_positional(flag)]
    assert [flag["flags"] for flag in flags if is_positional(flag)] == theirs


@pytest.mark.parametrize("command", UPSTREAM)
def test_added_flags_are_known_and_optional(command: str, flags: list[dict[str, Any]]) -> None:
    """Upstream's command lines work as they are, and the next flag is added on purpose."""
    upstreams = {spelling for flag in UPSTREAM[command] for spelling in flag["flags"]}
    added = [flag for flag in flags if not upstreams & set(flag["flags"])]
    assert {flag["flags"][0] for flag in added} == ADDED.get(command, set())
    documentation = (REPOSITORY / "docs" / "migrating.md").read_text()
    assert all(f"`{flag['flags'][0]}`" in documentation for flag in added)
    assert not any(flag["required"] for flag in added)


@pytest.mark.parametrize("command", sorted({*UPSTREAM, *SCRIPTS}))
def test_misspelled_flag_is_refused(
    command: str,
    flags: list[dict[str, Any]],
    nnunet_folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Upstream's nnUNetv2_extract_fingerprint, nnUNetv2_plan_experiment and nnUNetv2_preprocess ignore such flags."""
    words = [
        word
        for flag in flags
        if flag["required"]
        for word in ([] if is_positional(flag) else flag["flags"][:1]) + ["1"]
    ]
    module, function = SCRIPTS[command].split(":")
    entry_point = getattr(importlib.import_module(module), function)
    try:
        code = entry_point([*words, "--no_such_flag"])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in last_line
    assert "--no_such_flag" in last_line


def cpu_seconds_of_help(entry: str) -> tuple[float, int]:
    """CPU seconds (user and system) of a command's `-h` in a process of its own, and its exit code."""
    module, function = entry.split(":")
    program = f"import sys; from {module} import {function}; sys.exit({function}(['-h']))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, process.returncode


@pytest.mark.integration
def test_help_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    seconds, codes = {}, {}
    for command, entry in SCRIPTS.items():
        seconds[command], codes[command] = cpu_seconds_of_help(entry)
        if seconds[command] > LONGEST_HELP:  # the first run of a command may compile its modules
            seconds[command] = min(seconds[command], cpu_seconds_of_help(entry)[0])
    with capsys.disabled():
        print("\n" + "\n".join(f"{seconds[command]:6.2f} CPU s  {command} -h" for command in SCRIPTS))
    assert not {command: code for command, code in codes.items() if code != 0}
    assert not {command: time for command, time in seconds.items() if time > LONGEST_HELP}

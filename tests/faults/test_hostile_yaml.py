"""Fault 40: configuration files that run code, hang, read secrets or have a slip are rejected with their line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.run.run_training_vit import run_training_entry
from tests.faults.conftest import one_line

BOMB = "a: &k0 [1, 2]\n" + "".join(f"b{n}: &k{n} [*k{n - 1}, *k{n - 1}, *k{n - 1}]\n" for n in range(1, 30))
DOUBLING = "model:\n" + "".join(f"  k{n}: ${{k{n - 1}}}${{k{n - 1}}}\n" for n in range(1, 40))

HOSTILE = {
    "python tag": ("model:\n  head: !!python/object/apply:os.system [touch MARKER]\n", "is not valid YAML", "line 2"),
    "alias bomb": (BOMB, "line 8", "references"),
    "alias bomb in a setting": ("lora:\n  target_modules: &k0 [1]\n" + BOMB, "line 10", "references"),
    "key twice": ("lora:\n  r: 3\n  r: 4\n", "duplicate key r", "line 3"),
    "typo": ("model:\n  tunning: lora\n", "line 2", "did you mean model.tuning"),
    "environment variable": ("model:\n  checkpoint: ${oc.env:SECRET}\n", "line 2", "calls a function"),
    "nested brackets": ("model:\n  head: " + "[" * 5000 + "]" * 5000 + "\n", "line 2", "levels inside each other"),
    "nested sections": ("".join(" " * n + "a:\n" for n in range(500)), "line 31", "levels inside each other"),
    "growing references": (DOUBLING, "line 12", "references"),
    "large": ("# " + "x" * 2**20, "a configuration file has at most"),
    "binary": ("\x00\x01\x02", "is not valid YAML"),
}


@pytest.mark.parametrize(("text", "expected"), [(each[0], each[1:]) for each in HOSTILE.values()], ids=list(HOSTILE))
def test_the_file_is_rejected(
    text: str, expected: tuple[str, ...], tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "the secret")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    code, stderr = run(run_training_entry, "--print_config", "--config", path)
    assert code == 2
    one_line(stderr, "settings.yaml", *expected)
    assert "the secret" not in stderr
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("value", ["${oc.env:SECRET}", "[" * 5000, "!!python/object/apply:os.getcwd []"])
def test_words_of_the_command_line_are_checked_alike(
    value: str, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "the secret")
    code, stderr = run(run_training_entry, "--print_config", f"model.checkpoint={value}")
    assert code == 2
    one_line(stderr)
    assert "the secret" not in stderr

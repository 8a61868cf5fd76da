"""The description of a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from nnunetv2.training.protocol.run_information import commit_of, device_name


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    (tmp_path / "file.txt").write_text("one")
    for words in (["init", "-q"], ["add", "file.txt"], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run(["git", *settings, *words], cwd=tmp_path, check=True)
    return tmp_path


def test_the_commit_is_named_in_full_and_changes_are_seen(repository):
    commit = commit_of(repository)
    assert len(commit) == 40 and int(commit, 16)
    (repository / "file.txt").write_text("two")
    assert commit_of(repository) == f"{commit}-dirty"


def test_what_is_no_repository_has_no_commit(tmp_path, monkeypatch):
    assert commit_of(tmp_path) is None
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    assert commit_of(tmp_path) is None
    monkeypatch.setenv("PATH", "")  # no git
    assert commit_of(tmp_path) is None


def test_every_device_has_a_name(monkeypatch):
    assert device_name(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cuda", 1)) == "GPU 1"

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunetv2 import configuration
from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw


def test_a_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert os.path.join(nnUNet_raw, "Dataset001_A") == str(tmp_path / "Dataset001_A")
    assert Path(nnUNet_raw) == tmp_path
    assert nnUNet_raw == str(tmp_path)
    monkeypatch.setenv("nnUNet_raw", "/elsewhere")
    assert str(nnUNet_raw) == "/elsewhere"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", "~/data/raw")  # as quotes leave it
    assert os.fspath(nnUNet_raw) == nnUNet_raw.get() == str(tmp_path / "data" / "raw")


def test_an_unset_root_fails_on_use_and_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert not nnUNet_preprocessed.is_set()
    assert not nnUNet_preprocessed
    assert nnUNet_preprocessed == None  # noqa: E711 - users' scripts compare upstream's constant with None
    with pytest.raises(UsageError, match="export nnUNet_preprocessed="):
        os.fspath(nnUNet_preprocessed)
    with pytest.raises(UsageError, match="plans and preprocessed cases"):
        nnUNet_preprocessed.require()


def test_number_of_processes_is_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    assert configuration.default_num_processes == 8
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    assert configuration.default_num_processes == 3
    monkeypatch.setenv("nnUNet_def_n_proc", "0")
    with pytest.raises(UsageError, match="at least 1"):
        configuration.get_default_num_processes()


def test_number_of_augmentation_workers_is_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    assert configuration.default_n_proc_DA == 0
    with pytest.raises(AttributeError, match="no_such_setting"):
        configuration.no_such_setting  # noqa: B018

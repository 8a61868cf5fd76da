"""Row 25: plans that name a class or function of any module are refused before the module is imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.run.run_training import run_training_entry
from tests.faults.conftest import one_line

NAMES = ["evilmodule.X", "os.system", "torch.hub.load", "builtins.exec", "subprocess.run"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["network_class_name", "norm_op"])
def test_the_name_is_refused(
    name: str, place: str, tiny_images: Path, tmp_path: Path, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "evilmodule.py").write_text(f"open({str(marker)!r}, 'w')\nX = object\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tiny_images / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    (architecture if place == "network_class_name" else architecture["arch_kwargs"])[place] = name
    path.write_text(json.dumps(plans))
    code, stderr = run(run_training_entry, "777", "2d", "0", "-device", "cpu")
    assert code == 3, stderr
    one_line(stderr, name)
    assert not marker.exists()
    assert "evilmodule" not in sys.modules

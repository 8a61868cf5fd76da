"""A trainer for an old nnU-Net, whose constructor takes `unpack_dataset`: the error says what to delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2.run.run_training import run_training_entry
from tests.faults.conftest import one_line

pytestmark = pytest.mark.integration

SOURCE = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class OldTrainer(nnUNetTrainer):
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, unpack_dataset: bool = True,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, unpack_dataset, device)
        self.num_epochs = 2

class OldTrainerOfToday(OldTrainer):
    pass
"""


@pytest.mark.parametrize("name", ["OldTrainer", "OldTrainerOfToday"])
def test_old_argument_is_named(name: str, tiny_images: Path, tmp_path: Path, run, monkeypatch) -> None:
    (tmp_path / "old_trainers.py").write_text(SOURCE)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    code, errors = run(run_training_entry, "777", "2d", "0", "-tr", name, "-device", "cpu")
    assert code == 2
    one_line(errors, "OldTrainer (", "old_trainers.py", "delete unpack_dataset from the arguments of its __init__")

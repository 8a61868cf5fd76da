"""What TensorBoard is told, through a writer that remembers it, and through its own where it is installed."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.logging.local_logger import HISTORY_KEYS
from nnunetv2.training.logging.nnunet_logger import MetaLogger


class FakeWriter:
    made: list[FakeWriter] = []

    def __init__(self, folder: str, purge_step: int | None) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.folder, self.purge_step = Path(folder), purge_step
        self.scalars: list[tuple] = []
        self.texts: dict[str, str] = {}
        self.num_flushed = 0
        self.made.append(self)

    def add_scalar(self, *args: Any) -> None:
        self.scalars.append(args)

    def add_text(self, name: str, text: str) -> None:
        self.texts[name] = text

    def flush(self) -> None:
        self.num_flushed = len(self.scalars)


@pytest.fixture
def switched_on(monkeypatch) -> None:
    monkeypatch.delenv("nnUNet_wandb_enabled", raising=False)
    monkeypatch.setenv("nnUNet_tensorboard_enabled", "1")


@pytest.fixture
def writers(switched_on, monkeypatch) -> list[FakeWriter]:
    FakeWriter.made = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=FakeWriter))
    return FakeWriter.made


def test_missing_package_is_one_line(switched_on, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"run 'pip install tensorboard', or set nnUNet_tensorboard_enabled=0$"):
        MetaLogger(tmp_path, False)


def test_values_are_scalars_and_settings_are_texts(writers, tmp_path):
    logger = MetaLogger(tmp_path, False)
    logger.update_config({"fold": 0})
    assert writers == []  # nothing is written, and nothing deleted, before there is a value
    logger.log("epoch_start_timestamps", 1.7e9, 0)
    logger.log("dice_per_class_or_region", [np.float32(0.25), math.nan], 0)
    logger.log("epoch_end_timestamps", 1.7e9, 0)
    logger.update_config({"hparas": {"initial_lr": 0.01}})
    logger.log_summary("final_val/foreground_dice", 0.9)
    logger.log_summary("remark", "none")
    (writer,) = writers
    assert writer.folder == tmp_path / "tensorboard"
    assert writer.scalars[0] == ("dice_per_class_or_region/class_1", 0.25, 0)
    assert writer.scalars[1][0] == "dice_per_class_or_region/class_2" and math.isnan(writer.scalars[1][1])
    assert writer.scalars[2:] == [("final_val/foreground_dice", 0.9, 0)]
    assert writer.num_flushed == 3
    assert writer.texts.keys() == {"config/fold", "config/hparas"}


@pytest.mark.parametrize(("epoch", "purged", "is_kept"), [(0, None, False), (3, 3, True)])
def test_the_first_epoch_tells_what_of_an_earlier_training_stays(writers, tmp_path, epoch, purged, is_kept):
    earlier = tmp_path / "tensorboard" / "events.out.tfevents.1"
    earlier.parent.mkdir()
    earlier.touch()
    logger = MetaLogger(tmp_path, False)
    logger.load_checkpoint({key: [0.0] * epoch for key in HISTORY_KEYS})
    logger.log("lrs", 0.1, epoch)
    assert (writers[0].purge_step, earlier.exists()) == (purged, is_kept)


def test_a_validation_by_itself_deletes_nothing(writers, tmp_path):
    earlier = tmp_path / "tensorboard" / "events.out.tfevents.1"
    earlier.parent.mkdir()
    earlier.touch()
    MetaLogger(tmp_path, False).log_summary("final_val/foreground_dice", 0.9)
    assert writers[0].scalars and earlier.exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard")
def test_tensorboard_itself_reads_a_resumed_training(switched_on, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = MetaLogger(tmp_path, False)
    for epoch in range(4):
        first.log("train_losses", float(epoch), epoch)
    resumed = MetaLogger(tmp_path, True)
    resumed.load_checkpoint({"train_losses": [0.0, 1.0]})
    resumed.log("train_losses", 12.0, 2)
    resumed.log("epoch_end_timestamps", 0.0, 0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train_losses")] == [(0, 0.0), (1, 1.0), (2, 12.0)]

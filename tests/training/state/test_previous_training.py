"""A training that starts afresh leaves nothing of an older one that `--c` could take for its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import previous_training
from tests.training.loop.test_training_reports import MyLogger, QuickTrainer
from tests.training.tiny_dataset import Schedule, make_trainer

OLD = {f"checkpoint_{name}.pth": f"old {name}" for name in ("latest", "best", "final")}
OLD["validation/case.png"] = "old case"


@pytest.fixture(autouse=True)
def _quiet(nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_wandb_enabled", "nnUNet_tensorboard_enabled"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda *_: None)
    monkeypatch.setattr(nnUNetTrainer, "on_train_end", lambda self: None)  # as if killed after the last epoch


class Writing(QuickTrainer):
    """Writes checkpoints of plain text over those that are there."""

    def train_step(self, batch: dict) -> dict:
        if self.current_epoch == 0:
            assert contents(Path(self.output_folder)) == OLD  # nothing is touched before the end of the epoch
        return super().train_step(batch)

    def save_checkpoint(self, filename: str) -> None:
        if not self.disable_checkpointing:
            Path(filename).unlink(missing_ok=True)
            Path(filename).write_text(f"new of epoch {self.current_epoch}")


def with_old_files(trainer: nnUNetTrainer) -> Path:
    """Puts a finished training into the fold, and one that was set aside before; returns the folder."""
    fold = Path(trainer.output_folder)
    for path, text in {**OLD, "previous_training/oldest": "oldest"}.items():
        (fold / path).parent.mkdir(parents=True, exist_ok=True)
        (fold / path).write_text(text)
    return fold


def contents(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("checkpoint_*"), *folder.glob("validation/*"), *folder.glob("oldest")]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.mark.parametrize("has_own_logger", [False, True])  # with one, the best is written before the epoch is reported
def test_the_first_epoch_sets_the_older_training_aside(has_own_logger, capsys):
    trainer = make_trainer(Writing, Schedule(epochs=1))
    fold = with_old_files(trainer)
    if has_own_logger:
        trainer.logger = MyLogger()
    trainer.run_training()
    assert contents(fold) == {"checkpoint_best.pth": "new of epoch 0"}
    aside = contents(fold / "previous_training")
    assert aside == {name: text for name, text in OLD.items() if not has_own_logger or text != "old best"}
    told = capsys.readouterr().out.count(f"of an older training in this fold are now in {fold}/previous_training")
    assert told == 1


def test_an_interrupted_training_does_not_take_the_place_of_a_finished_one():
    fold = Path(make_trainer(Writing).output_folder)
    (fold / "previous_training").mkdir(parents=True)
    (fold / "previous_training" / "checkpoint_final.pth").write_text("finished")
    (fold / "checkpoint_best.pth").write_text("interrupted")
    told = previous_training.PreviousTraining(fold).set_aside()
    assert told.endswith(f"are now in {fold}/interrupted_training")
    assert contents(fold) == {}
    assert contents(fold / "previous_training") == {"checkpoint_final.pth": "finished"}
    assert contents(fold / "interrupted_training") == {"checkpoint_best.pth": "interrupted"}

    (fold / "checkpoint_final.pth").write_text("finished later")
    previous_training.PreviousTraining(fold).set_aside()
    assert contents(fold / "previous_training") == {"checkpoint_final.pth": "finished later"}


def test_a_resumed_training_and_one_without_checkpoints_leave_the_older_files(capsys):
    trainer = make_trainer(Writing, Schedule(epochs=1))
    fold = with_old_files(trainer)
    trainer.disable_checkpointing = True
    trainer.run_training()
    assert contents(fold) == OLD
    trainer.disable_checkpointing = False
    trainer.current_epoch = 1
    status = trainer._status()
    found = previous_training.found_at_start(
        status.output_folder, status.epoch, writes_checkpoints=status.writes_checkpoints
    )
    assert found is None
    assert contents(fold / "previous_training") == {"oldest": "oldest"}


@pytest.mark.parametrize("moved", range(4))
def test_what_cannot_be_moved_is_said_and_a_kill_between_leaves_the_older_training_whole(moved, monkeypatch, caplog):
    fold = with_old_files(make_trainer(Writing))
    replace = previous_training.os.replace
    left = iter(range(moved))

    def replace_some(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise OSError("device busy")
        replace(source, target)

    monkeypatch.setattr(previous_training.os, "replace", replace_some)
    assert previous_training.PreviousTraining(fold).set_aside() is None
    assert (fold / "checkpoint_final.pth").read_text() == OLD["checkpoint_final.pth"]
    assert "(device busy); remove checkpoint_latest.pth, checkpoint_best.pth, validation, " in caplog.text

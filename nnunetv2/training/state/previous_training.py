"""Sets aside what an older training left in a fold, so that `--c` and `--val` find only what the newer one wrote."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from nnunetv2.training.state.checkpoint import BEST, FINAL, LATEST

FOLDER = "previous_training"
INTERRUPTED = "interrupted_training"  # beside a finished one in FOLDER

# The final checkpoint is last: a kill before leaves a fold that still holds the older training as a whole.
_MOVED = (LATEST, BEST, "validation", FINAL)

logger = logging.getLogger(__name__)


class PreviousTraining:
    """Checkpoints and validation that are in a fold when a training starts afresh there.

    They are worth keeping until the new training has something to go on with, which is at the end of its first epoch.

    Args:
        fold_folder: of the training that starts.
    """

    def __init__(self, fold_folder: str | os.PathLike) -> None:
        self._folder = Path(fold_folder)
        paths = (self._folder / name for name in _MOVED)
        self._found = {path: _identity(path) for path in paths if path.exists()}

    def set_aside(self) -> str | None:
        """Moves them into the folder `previous_training`, in place of what it holds, and says so in one line.

        Files that the new training has replaced meanwhile stay. None if there is nothing to move. A training that was
        interrupted does not take the place of a finished one: a restart after a restart would lose that.
        """
        old = [path for path, identity in self._found.items() if path.exists() and _identity(path) == identity]
        if not old:
            return None
        target = self._folder / FOLDER
        if (target / FINAL).exists() and self._folder / FINAL not in old:
            target = self._folder / INTERRUPTED
        try:
            if target.is_dir():
                shutil.rmtree(target)
            target.mkdir()
            for path in old:
                os.replace(path, target / path.name)
        except OSError as err:
            logger.warning(
                "An older training in %s could not be moved into %s (%s); remove %s by hand, or --c may go on with it",
                self._folder,
                target,
                err,
                ", ".join(path.name for path in old),
            )
            return None
        return f"{', '.join(path.name for path in old)} of an older training in this fold are now in {target}"


def found_at_start(
    fold_folder: str | os.PathLike | None, first_epoch: int, *, writes_checkpoints: bool
) -> PreviousTraining | None:
    """What lies in the fold of a training that is about to start; None if the training leaves that alone.

    A training that goes on from a checkpoint does, and one that writes none.

    Args:
        first_epoch: that is trained, counted from 0.
    """
    if fold_folder is None or first_epoch > 0 or not writes_checkpoints:
        return None
    return PreviousTraining(fold_folder)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from one that was written in its place; folders are not told apart."""
    status = path.stat()
    return None if path.is_dir() else (status.st_ino, status.st_mtime_ns)

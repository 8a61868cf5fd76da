"""Moves the results of an older training in a fold aside, so that `--c` and `--val` find only the new ones."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from nnunetv2.training.state.checkpoint import BEST, FINAL, LATEST, PREVIOUS

FOLDER = "previous_training"
INTERRUPTED = "interrupted_training"  # next to a finished one in FOLDER

# The final checkpoint is moved last: if killed before, the fold still contains the complete older training.
_MOVED = (LATEST, PREVIOUS, BEST, "validation", FINAL)

logger = logging.getLogger(__name__)


class PreviousTraining:
    """Checkpoints and validation results that exist in a fold when a new training starts.

    They are kept until the new training can be resumed, that is, until the end of its first epoch.

    Args:
        fold_folder: folder of the fold of the new training.
    """

    def __init__(self, fold_folder: str | os.PathLike) -> None:
        self._folder = Path(fold_folder)
        paths = (self._folder / name for name in _MOVED)
        self._found = {path: _identity(path) for path in paths if path.exists()}

    def set_aside(self) -> str | None:
        """Moves them to the folder `previous_training`, replacing its content, and returns a line for the log.

        Files that the new training has already replaced stay. Returns None if there is nothing to move. An interrupted
        training does not replace a finished one, which would otherwise be lost after two restarts.
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
                "An older training in %s could not be moved into %s (%s); remove %s by hand, or --c may resume it",
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
    """Finds the older training in the fold of a training that is about to start.

    None if the training resumes a checkpoint or writes none: it then leaves the files in place.

    Args:
        first_epoch: first epoch to train, counted from 0.
    """
    if fold_folder is None or first_epoch > 0 or not writes_checkpoints:
        return None
    return PreviousTraining(fold_folder)


def _identity(path: Path) -> tuple[int, int] | None:
    """Identity of a file that changes when it is replaced; None for folders."""
    status = path.stat()
    return None if path.is_dir() else (status.st_ino, status.st_mtime_ns)

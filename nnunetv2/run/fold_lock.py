"""One training, or validation, at a time in the folder of a fold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinov3.utils.folder_lock import LOCK_FILE, locked_folder
from nnunetv2.paths import nnUNet_results
from nnunetv2.run.training_run import TrainingRun
from nnunetv2.utilities.file_path_utilities import get_output_folder


@contextmanager
def only_training(run: TrainingRun, *, force: bool = False) -> Iterator[None]:
    """Locks the folder of a fold within the block; of several processes, the first locks it for all.

    A folder that nothing was written to is removed again.

    Args:
        force: go on if another process holds the lock.

    Raises:
        LockedError: another process trains or validates the fold.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    folder = get_output_folder(run.dataset, run.trainer_name, run.plans_identifier, run.configuration, run.fold)
    with locked_folder(folder, "training", force=force):
        try:
            yield
        finally:
            _remove_if_unused(Path(folder))


def _remove_if_unused(folder: Path) -> None:
    root = Path(nnUNet_results)
    if os.listdir(folder) != [LOCK_FILE]:
        return
    (folder / LOCK_FILE).unlink()
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent

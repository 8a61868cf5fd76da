"""Find a trainer by the name given by a command or stored in a checkpoint."""

from __future__ import annotations

import inspect

from nnunetv2.errors import UsageError
from nnunetv2.utilities.class_lookup import find_by_name


def recursive_find_trainer_class_by_name(trainer_name: str) -> type:
    """Find a trainer class in nnU-Net or in the users' trainer folders.

    Raises:
        UsageError: the class does not exist, or does not derive from nnUNetTrainer.
    """
    found = find_by_name("trainer", trainer_name)
    base = find_by_name("trainer", "nnUNetTrainer")
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise UsageError(f"{trainer_name} (in {found.__module__}) is not a trainer: it must derive from nnUNetTrainer")
    return found

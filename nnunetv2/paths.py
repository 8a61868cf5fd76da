"""Root folders of nnU-Net, read from the environment on each use."""

from __future__ import annotations

import os

from nnunetv2.errors import UsageError

_PURPOSE = {
    "nnUNet_raw": "raw datasets",
    "nnUNet_preprocessed": "plans and preprocessed cases",
    "nnUNet_results": "trained models",
    "nnUNet_extTrainer": "trainers of your own",
    "nnUNet_extensions": "trainers, heads, losses, metrics, backbones and readers of your own",
}


class EnvironmentPath(os.PathLike):
    """A folder named by an environment variable, usable like a path.

    Importing this module never fails; *using* a root whose variable is not set raises `UsageError`.
    """

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def get(self) -> str | None:
        """The folder, or None if the variable is unset or empty; `~` is the home folder, also where quotes kept it."""
        return os.path.expanduser(os.environ.get(self.variable, "")) or None

    def is_set(self) -> bool:
        return self.get() is not None

    def __bool__(self) -> bool:
        return self.is_set()

    def __fspath__(self) -> str:
        value = self.get()
        if value is None:
            raise UsageError(
                f"The environment variable {self.variable} is not set. It names the folder for "
                f"{_PURPOSE[self.variable]}; set it with: export {self.variable}=/path/to/folder"
            )
        return value

    def require(self) -> str:
        return self.__fspath__()

    def __str__(self) -> str:
        return self.__fspath__()

    def __repr__(self) -> str:
        return f"EnvironmentPath({self.variable!r})"

    def __eq__(self, other: object) -> bool:
        if other is None:
            return not self.is_set()
        return self.is_set() and isinstance(other, (str, os.PathLike)) and os.fspath(self) == os.fspath(other)

    def __hash__(self) -> int:
        return hash(self.variable)


nnUNet_raw = EnvironmentPath("nnUNet_raw")
nnUNet_preprocessed = EnvironmentPath("nnUNet_preprocessed")
nnUNet_results = EnvironmentPath("nnUNet_results")
nnUNet_extTrainer = EnvironmentPath("nnUNet_extTrainer")
nnUNet_extensions = EnvironmentPath("nnUNet_extensions")

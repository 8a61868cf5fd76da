"""Settings of the whole package; environment variables are read on access."""

from __future__ import annotations

import importlib
import os

from nnunetv2.errors import UsageError

ANISO_THRESHOLD = 3  # ratio of voxel spacings above which an axis counts as low-resolution

_DEFAULT_NUM_PROCESSES = 8


def get_default_num_processes() -> int:
    """Number of worker processes for per-case work: `nnUNet_def_n_proc`, else 8."""
    value = os.environ.get("nnUNet_def_n_proc", str(_DEFAULT_NUM_PROCESSES))
    if not value.isdigit() or int(value) < 1:
        raise UsageError(f"nnUNet_def_n_proc is {value!r}; it must be a whole number of at least 1")
    return int(value)


def __getattr__(name: str) -> int:
    # Module constants in upstream; resolved on access here, so that they follow the environment.
    if name == "default_num_processes":
        return get_default_num_processes()
    if name == "default_n_proc_DA":
        return importlib.import_module("nnunetv2.utilities.default_n_proc_DA").get_allowed_n_proc_DA()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Number of data augmentation processes per GPU."""

from __future__ import annotations

import os

from nnunetv2.errors import UsageError

_VARIABLE = "nnUNet_n_proc_DA"
_DEFAULT = 12


def get_allowed_n_proc_DA() -> int:
    """Number of augmentation processes per GPU: `nnUNet_n_proc_DA`, else 12; at most the number of CPUs.

    0 augments in the training process itself.
    """
    value = os.environ.get(_VARIABLE, str(_DEFAULT))
    if not value.strip().isdecimal():
        raise UsageError(f"{_VARIABLE} is {value!r}; it must be a whole number of at least 0")
    return min(int(value), os.cpu_count() or 1)

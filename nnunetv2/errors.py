"""Errors that users can act on, all derived from `NNUNetError`."""

from dinov3.utils.errors import (
    DataError,
    DivergedError,
    LockedError,
    PartialError,
    PreemptedError,
    UsageError,
    WriteError,
)
from dinov3.utils.errors import UserError as NNUNetError

__all__ = [
    "DataError",
    "DivergedError",
    "LockedError",
    "NNUNetError",
    "PartialError",
    "PreemptedError",
    "UsageError",
    "WriteError",
]

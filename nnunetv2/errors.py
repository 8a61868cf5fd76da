"""Errors that users can act on, all derived from `NNUNetError`."""

from dinov3.utils.errors import DataError, DivergedError, UsageError
from dinov3.utils.errors import UserError as NNUNetError

__all__ = ["DataError", "DivergedError", "NNUNetError", "UsageError"]

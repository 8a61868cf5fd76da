"""Errors that a user can act on; `NNUNetError` is the base of all of them."""

from dinov3.utils.errors import DataError, DivergedError, UsageError
from dinov3.utils.errors import UserError as NNUNetError

__all__ = ["DataError", "DivergedError", "NNUNetError", "UsageError"]

"""Errors that a user can fix. Commands print them as one line and exit with `exit_code`."""


class UserError(Exception):
    """Base of all errors with a message for the user: what was given, what is accepted, what to do."""

    exit_code = 1


class UsageError(UserError, ValueError):
    """An invalid argument, setting, configuration key or environment variable."""

    exit_code = 2


class DataError(UserError, ValueError):
    """A dataset, image, label or stored case that cannot be used."""

    exit_code = 3


class WriteError(UserError, OSError):
    """A file that could not be written, because the disk is full or cannot be used.

    Args:
        needs_space: deleting other files would help.
    """

    def __init__(self, message: str, *, needs_space: bool = False) -> None:
        super().__init__(message)
        self.needs_space = needs_space


class PartialError(UserError, RuntimeError):
    """Part of the cases could not be processed; the results of the others are complete."""

    exit_code = 4


class DivergedError(UserError, ArithmeticError):
    """Training produced a loss that is not finite."""

    exit_code = 5


class LockedError(UserError, RuntimeError):
    """Another process works in the same folder."""

    exit_code = 6


class PreemptedError(UserError, RuntimeError):
    """A signal ended the work, which was saved and can be resumed; schedulers requeue jobs with this exit code."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class ProcessDiedError(UserError, RuntimeError):
    """A process of a group ended without a message for the user."""


class ConnectionLostError(UserError, RuntimeError):
    """Another process of the group ended, or cannot be reached."""

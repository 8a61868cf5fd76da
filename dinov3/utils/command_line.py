"""Common behaviour of console commands: one-line errors, exit codes, logging."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from dinov3.utils.atomic_files import is_full
from dinov3.utils.errors import UsageError, UserError

Command = Callable[[Sequence[str] | None], int | None]
EXIT_INTERRUPTED = 130
_HOME = re.compile(r"(?:^|(?<==))~(?=/|$)")


def command(main: Command, *, traceback_variable: str = "DINOV3_TRACEBACK") -> Callable[..., int]:
    """Wraps `main(argv)` as a console entry point that returns an exit code.

    A `UserError` becomes one line on stderr and the error's exit code; so do file errors of the operating system (exit
    code 1), and packages that cannot be imported (exit code 2). Any other exception is a bug and keeps its traceback.
    `~/` at the beginning of a word or of its value is the home folder: shells leave it in quotes and in `key=~/file`.

    Args:
        traceback_variable: environment variable that enables tracebacks for `UserError` if set to 1.
    """

    @functools.wraps(main)
    def entry_point(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        try:
            return main([_HOME.sub(_home, word) for word in (sys.argv[1:] if argv is None else argv)]) or 0
        except UserError as err:
            if is_switched_on(traceback_variable):
                raise
            sys.stdout.flush()
            if not _says_another_process():
                sys.stderr.write(f"error: {' '.join(str(err).split())}\n")
            return err.exit_code
        except OSError as err:
            if is_switched_on(traceback_variable) or not (err.filename or is_full(err)):
                raise
            sys.stdout.flush()
            place = f": {err.filename}" if err.filename else ""
            cure = "the disk is full, make space" if is_full(err) else "check that the path exists and can be used"
            sys.stderr.write(f"error: {err.strerror}{place}; {cure}\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return EXIT_INTERRUPTED
        except Exception as err:
            from dinov3.utils.broken_packages import describe_broken_package

            problem = describe_broken_package(err)
            if problem is None or is_switched_on(traceback_variable):
                raise
            sys.stdout.flush()
            sys.stderr.write(f"error: {problem}; nnUNetv2_doctor says what to install\n")
            return UsageError.exit_code

    return entry_point


def _home(_: re.Match) -> str:
    return os.path.expanduser("~")


def _says_another_process() -> bool:
    """True if another process started by `torchrun` reports the same error.

    All of them have the same command line. After joining a group, `process_group_from_environment` decides which
    process reports.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    torch = sys.modules.get("torch")
    return torch is None or not torch.distributed.is_initialized()


def is_switched_on(variable: str) -> bool:
    """True if an environment variable is set to anything but an empty string or 0."""
    return os.environ.get(variable, "0") not in ("", "0")

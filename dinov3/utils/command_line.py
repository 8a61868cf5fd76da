"""What every console command shares: one-line errors, exit codes, logging."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence

from dinov3.utils.errors import UserError

Command = Callable[[Sequence[str] | None], int | None]
EXIT_INTERRUPTED = 130


def command(main: Command, *, traceback_variable: str = "DINOV3_TRACEBACK") -> Callable[..., int]:
    """Turns `main(argv)` into a console entry point that returns an exit code.

    A `UserError` becomes one line on stderr and the error's exit code, and so does what the operating system says of
    a file or folder (exit code 1). Any other exception is a defect of the program and keeps its traceback.

    Args:
        traceback_variable: environment variable that, set to 1, shows where a `UserError` was raised.
    """

    @functools.wraps(main)
    def entry_point(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        try:
            return main(argv) or 0
        except UserError as err:
            if is_switched_on(traceback_variable):
                raise
            sys.stdout.flush()
            if not _says_another_process():
                sys.stderr.write(f"error: {' '.join(str(err).split())}\n")
            return err.exit_code
        except OSError as err:
            if err.filename is None or is_switched_on(traceback_variable):
                raise
            sys.stdout.flush()
            sys.stderr.write(f"error: {err.strerror}: {err.filename}; check that the path exists and can be used\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return EXIT_INTERRUPTED

    return entry_point


def _says_another_process() -> bool:
    """Whether another process meets the same error and says so: one that `torchrun` started beside this one.

    They have the same command line. Once they are a group, `process_group_from_environment` decides who speaks.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    torch = sys.modules.get("torch")
    return torch is None or not torch.distributed.is_initialized()


def is_switched_on(variable: str) -> bool:
    """Whether an environment variable is set to anything but nothing or 0."""
    return os.environ.get(variable, "0") not in ("", "0")

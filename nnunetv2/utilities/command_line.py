"""What every console command shares: one-line errors, exit codes, logging."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence

from nnunetv2.errors import NNUNetError

Command = Callable[[Sequence[str] | None], int | None]
EXIT_INTERRUPTED = 130


def command(main: Command) -> Callable[..., int]:
    """Turns `main(argv)` into a console entry point that returns an exit code.

    A `NNUNetError` becomes one line on stderr and the error's exit code, and so does what the operating system says of
    a file or folder (exit code 1); set `nnUNet_traceback=1` to see where it was raised. Any other exception is a defect
    of the program and keeps its traceback.
    """

    @functools.wraps(main)
    def entry_point(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        try:
            return main(argv) or 0
        except NNUNetError as err:
            if _wants_traceback():
                raise
            sys.stdout.flush()
            sys.stderr.write(f"error: {' '.join(str(err).split())}\n")
            return err.exit_code
        except OSError as err:
            if err.filename is None or _wants_traceback():
                raise
            sys.stdout.flush()
            sys.stderr.write(f"error: {err.strerror}: {err.filename}; check that the path exists and can be used\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return EXIT_INTERRUPTED

    return entry_point


def _wants_traceback() -> bool:
    return os.environ.get("nnUNet_traceback", "0") not in ("", "0")

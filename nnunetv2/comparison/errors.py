"""The error raised when a comparison would not be fair."""

from __future__ import annotations

import sys

from nnunetv2.errors import NNUNetError

_RED, _PLAIN = "\033[1;31m", "\033[0m"


class NotComparableError(NNUNetError):
    """Models were not trained and scored alike; the message has one line per broken equality."""

    exit_code = 4


def refuse(error: NotComparableError) -> int:
    """Write each line of the error to stderr, red on a terminal, and return the command's exit code."""
    before, behind = (_RED, _PLAIN) if sys.stderr.isatty() else ("", "")
    for line in str(error).splitlines():
        sys.stderr.write(f"{before}{line}{behind}\n")
    return error.exit_code

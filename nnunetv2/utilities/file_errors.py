"""Report an exception in a user's file as one line that names the file, the line and the exception."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.errors import NNUNetError, UsageError


class UserFileError(UsageError):
    """An error in a user's Python file; the message names the file."""


@contextmanager
def reported_with_place(path: Path, root: Path) -> Iterator[None]:
    """Reports every exception of the block, in which a user's file is imported, as one of that file.

    Args:
        path: the file.
        root: folder of the file and of the neighbours that it may import.

    Raises:
        UserFileError: names the innermost place in a file below `root`.
    """
    try:
        yield
    except UserFileError:
        raise
    except NNUNetError as err:  # says itself what to do
        raise UserFileError(f"{_place(err, path, root)}: {err}") from err
    except SyntaxError as err:
        raise UserFileError(f"{_place(err, path, root)}: {type(err).__name__}: {err.msg}; correct this file") from err
    except (Exception, SystemExit) as err:
        raise UserFileError(f"{_place(err, path, root)}: {_in_words(err)}; correct this file") from err


def _in_words(err: BaseException) -> str:
    return f"{type(err).__name__}: {err}" if str(err) else type(err).__name__


def _place(err: BaseException, path: Path, root: Path) -> str:
    if isinstance(err, SyntaxError) and err.filename is not None:
        return f"{err.filename}, line {err.lineno}"
    inside = [
        frame
        for frame in traceback.extract_tb(err.__traceback__)
        if Path(frame.filename).is_file() and Path(frame.filename).resolve().is_relative_to(root.resolve())
    ]
    return f"{inside[-1].filename}, line {inside[-1].lineno}" if inside else str(path)

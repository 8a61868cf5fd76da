"""Names that become part of paths: one check, so that no name from a file or a command leads out of its folder."""

from __future__ import annotations

import os
import re

from nnunetv2.errors import DataError, NNUNetError

LONGEST_NAME = 200  # bytes: file systems allow 255, and nnU-Net appends endings such as `_0000.nii.gz`
_FORBIDDEN = re.compile(r"[/\\:\x00-\x1f\x7f]")
_SHOWN = 80


def check_name(name: object, of_what: str, error: type[NNUNetError] = DataError) -> str:
    """Return the name if it is valid as the name of one file or folder; letters of all languages are.

    Args:
        name: as read from a file or a command line.
        of_what: for the message, for example `a case` or `the plans ("plans_name" in plans.json)`.
        error: raised instead of `DataError`; `UsageError` for arguments of commands.

    Raises:
        DataError: it is no text, empty, too long, only dots (`..`), cannot be encoded, or has a path separator, a colon
            or a control character.
    """
    if isinstance(name, str) and name.strip(" .") != "" and not _FORBIDDEN.search(name) and _fits(name):
        return name
    raise error(
        f"{shortened(name)} cannot be the name of {of_what}: it becomes a file name, so it must not be empty, contain "
        f"/ \\ : or control characters, consist of dots, or be longer than {LONGEST_NAME} bytes"
    )


def _fits(name: str) -> bool:
    try:
        return len(os.fsencode(name)) <= LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can express
        return False


def check_file_ending(ending: object, where: str) -> str:
    """Return the ending of image files if it is one, like `.nii.gz`.

    Args:
        where: for the message, for example `dataset.json`.

    Raises:
        DataError: it does not begin with a dot, or is not valid as part of a file name.
    """
    if not isinstance(ending, str) or not ending.startswith(".") or ending != ending.strip():
        raise DataError(
            f'{where}: "file_ending" is {shortened(ending)}; it is the ending of all images and labels, with its dot, '
            f'like ".nii.gz" or ".png"'
        )
    return check_name(ending, f'files ("file_ending" in {where})')


def shortened(value: object, length: int = _SHOWN) -> str:
    """Format a value for a message, as Python writes it, cut to `length` characters."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."

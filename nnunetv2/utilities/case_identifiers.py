"""A case's name becomes part of many paths; keep those paths inside their folders."""

from __future__ import annotations

import re

from nnunetv2.errors import DataError

_MAX_BYTES = 200  # file systems allow 255 for a name, and nnU-Net appends endings such as `_0000.nii.gz`
_FORBIDDEN = re.compile(r"[/\\:\x00-\x1f\x7f]")


def check_case_identifier(identifier: str) -> str:
    """Returns the identifier if it can be a file's name.

    Raises:
        DataError: it is empty, too long, a relative folder (`..`), or has a path separator or control character.
    """
    too_long = len(str(identifier).encode("utf-8", "surrogatepass")) > _MAX_BYTES
    if not isinstance(identifier, str) or identifier.strip(" .") == "" or too_long or _FORBIDDEN.search(identifier):
        shown = repr(identifier)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise DataError(
            f"{shown} cannot be the name of a case: it becomes a file name, so it must not be empty, contain / \\ : "
            f"or control characters, consist of dots, or be longer than {_MAX_BYTES} bytes"
        )
    return identifier

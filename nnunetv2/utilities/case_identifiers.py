"""Check case identifiers, which become part of many paths, so that these paths stay inside their folders."""

from __future__ import annotations

import re

from nnunetv2.errors import DataError

_MAX_BYTES = 200  # file systems allow 255 per name, and nnU-Net appends endings such as `_0000.nii.gz`
_FORBIDDEN = re.compile(r"[/\\:\x00-\x1f\x7f]")


def check_case_identifier(identifier: str) -> str:
    """Return the identifier if it is a valid file name.

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

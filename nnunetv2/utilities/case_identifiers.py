"""Check case identifiers, which become part of many paths, so that these paths stay inside their folders."""

from __future__ import annotations

from nnunetv2.utilities.file_names import check_name


def check_case_identifier(identifier: object) -> str:
    """Return the identifier if it is a valid file name.

    Raises:
        DataError: see `check_name`.
    """
    return check_name(identifier, "a case")

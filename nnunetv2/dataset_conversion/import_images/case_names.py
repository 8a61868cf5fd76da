"""Make the names of cases safe for files: letters, digits, underscore and hyphen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from nnunetv2.utilities.case_identifiers import check_case_identifier

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def safe_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Replaces other characters by an underscore; names that would then be equal get a number.

    File systems may not distinguish capital and small letters, so `A` and `a` count as equal.

    Args:
        taken: names of cases that exist already.

    Raises:
        DataError: a name is too long for a file.
    """
    used = {name.lower() for name in taken}
    safe = []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        wanted = _UNSAFE.sub("_", plain).strip("_") or "case"
        unique, number = wanted, 2
        while unique.lower() in used:
            unique, number = f"{wanted}_{number}", number + 1
        used.add(unique.lower())
        safe.append(check_case_identifier(unique))
    return safe

"""Recognise cases whose names say that they come from one patient."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from nnunetv2.utilities.crossval_split import Groups

_WORDS = "visit|session|ses|timepoint|time|tp|scan|exam|day|week|month|year|fu|baseline|bl|pre|post|slice|frame|v|t"
# Each has the patient as its first group. A patient's name ends in a number: "scan_1" and "scan_2" are two patients.
_PATTERNS = (
    r"^(sub-[^_]+)_",  # BIDS
    rf"(?i)^(.*\d)[-_.]*(?:{_WORDS})[-_.]?\d*$",
    r"(?i)^(.*\d)[-_.]*(?:left|right|l|r|od|os)$",
    r"(?i)^(.*\d)[-_.]?[a-d]$",
    r"^(.*\d)[-_.](?:19|20)\d\d[-_.]?\d\d[-_.]?\d\d$",  # a date
    r"^(.*\d)[-_.]\d{1,3}$",
)
_MIN_PATIENTS = 2
_MAX_MEAN_SIZE = 20  # larger groups are rather the parts of a dataset, such as years or centres


def visits_of_patients(identifiers: Sequence[str]) -> tuple[str, Groups] | None:
    """Group cases by patient if their names look so: patient_01_visit1, sub-01_ses-2, P12_L, 7a, 0005_100.

    Returns:
        A pattern for `--group_by` and the group of each case; None if no two cases look like one patient's.
    """
    for pattern in _PATTERNS:
        patients: dict[str, list[str]] = defaultdict(list)
        for case in identifiers:
            match = re.search(pattern, case)
            patients[match[1] if match else case].append(case)
        several = [cases for cases in patients.values() if len(cases) > 1]
        if len(patients) < _MIN_PATIENTS or not several:
            continue
        if sum(map(len, several)) / len(several) <= _MAX_MEAN_SIZE:
            return pattern, {case: patient for patient, cases in patients.items() for case in cases}
    return None

"""The error of a comparison that would not be fair."""

from nnunetv2.errors import NNUNetError


class NotComparableError(NNUNetError):
    """Models that were not trained and scored alike; the message has one line for each broken equality."""

    exit_code = 4

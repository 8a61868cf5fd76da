"""Format parts of messages: numbers with nouns, and commands that can be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Format `1 case`, `2 cases`; give the plural if it is not the singular with an `s`."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def command_text(words: Iterable[object]) -> str:
    """Join words to a command line, with shell quoting."""
    return shlex.join(str(word) for word in words)


def preprocessing_command(dataset_name: str, plans_name: str, configurations: Sequence[str]) -> str:
    """Format the command that preprocesses configurations of plans.

    Raises:
        UsageError: the dataset name has no number.
    """
    number = convert_dataset_name_to_id(dataset_name)
    return command_text(["nnUNetv2_preprocess", "-d", number, "-plans_name", plans_name, "-c", *configurations])

"""Parts of messages: numbers with their nouns, and commands that can be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Returns `1 case`, `2 cases`; the plural is given where it is not the singular with an `s`."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def command_text(words: Iterable[object]) -> str:
    """Returns the command line of these words, quoted where the shell needs it."""
    return shlex.join(str(word) for word in words)


def preprocessing_command(dataset_name: str, plans_name: str, configurations: Sequence[str]) -> str:
    """Returns the command that preprocesses configurations of plans.

    Raises:
        UsageError: the dataset has no number in its name.
    """
    number = convert_dataset_name_to_id(dataset_name)
    return command_text(["nnUNetv2_preprocess", "-d", number, "-plans_name", plans_name, "-c", *configurations])

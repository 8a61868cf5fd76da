"""Commands as messages print them: they can be pasted into a shell, whatever their words contain."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id


def command_text(words: Iterable[object]) -> str:
    """The command line of these words, with quotes where the shell needs them."""
    return shlex.join(str(word) for word in words)


def preprocessing_command(dataset_name: str, plans_name: str, configurations: Sequence[str]) -> str:
    """The command that preprocesses configurations of plans.

    Raises:
        UsageError: the dataset has no number in its name.
    """
    number = convert_dataset_name_to_id(dataset_name)
    return command_text(["nnUNetv2_preprocess", "-d", number, "-plans_name", plans_name, "-c", *configurations])

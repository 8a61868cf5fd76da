"""Take out of exported files what says where and on which machine they were made."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_extensions, nnUNet_extTrainer, nnUNet_preprocessed, nnUNet_raw, nnUNet_results

_ROOTS = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results, nnUNet_extTrainer, nnUNet_extensions)
_END_OF_NAME = r"(?![\w.-])"  # /home/jo is no part of /home/joe
_HOME = "~"
_COMMAND = "nnUNetv2_"
_TEXT_FILES = (".json", ".jsonl", ".txt", ".yaml")


def private_folders() -> dict[str, str]:
    """What to write in the place of nnU-Net's folders and of the home folder, the longest folders first.

    Symbolic links are also listed by what they lead to.
    """
    named = [(os.fspath(root), f"${root.variable}") for root in _ROOTS if root.is_set()]
    named.append((os.path.expanduser("~"), _HOME))
    both = {text: name for folder, name in named for text in (folder.rstrip("/\\"), os.path.realpath(folder))}
    return {folder: both[folder] for folder in sorted(both, key=len, reverse=True) if len(folder) > 1}


def without_folders(value: Any, folders: Mapping[str, str]) -> Any:
    """The value with every folder replaced in all its texts, at any depth of dicts, lists and tuples."""
    if isinstance(value, str):
        for folder, name in folders.items():
            if folder in value:
                value = re.sub(re.escape(folder) + _END_OF_NAME, name, value)
        return value
    if isinstance(value, dict):
        return {without_folders(key, folders): without_folders(entry, folders) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_folders(entry, folders) for entry in value)
    return value


def _shareable_line(line: str, folders: Mapping[str, str]) -> str:
    """A line without private folders; a command still works where the folders that it names have spaces."""
    if not line.startswith(_COMMAND):
        return without_folders(line, folders)
    try:
        words = shlex.split(line)
    except ValueError:  # an apostrophe that nobody closes: it was no command line before
        return without_folders(line, folders)
    if without_folders(words, folders) == words:
        return line
    return " ".join(_shell_word(word, folders) for word in words) + line[len(line.rstrip("\r\n")) :]


def _shell_word(word: str, folders: Mapping[str, str]) -> str:
    """A word of a command line; the shell fills in the variables that stand for private folders."""
    shareable = without_folders(word, folders)
    if shareable == word:
        return shlex.quote(word)
    inside = re.sub(r'["\\`]|\$(?!nnUNet_)', r"\\\g<0>", shareable)
    if inside.startswith(f"{_HOME}/"):  # which the shell does not expand within quotes
        inside = f"$HOME{inside[1:]}"
    return f'"{inside}"'


def shareable_text(path: Path, folders: Mapping[str, str]) -> str | None:
    """The text of a file without private folders and host name; None if the file may be shared as it is."""
    if path.suffix not in _TEXT_FILES:
        return None
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        shareable = "".join(_shareable_line(line, folders) for line in text.splitlines(keepends=True))
        return None if shareable == text else shareable
    if path.suffix != ".json":
        shareable = without_folders(text, folders)
        return None if shareable == text else shareable
    content = json.loads(text)
    shareable = without_folders(content, folders)
    if path.name == "debug.json" and "hostname" in shareable:
        shareable["hostname"] = ""
    return None if shareable == content else json.dumps(shareable, indent=4)

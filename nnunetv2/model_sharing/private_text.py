"""Remove paths and the host name of this machine from exported files."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dinov3.utils.json_files import read_json
from nnunetv2.paths import nnUNet_extensions, nnUNet_extTrainer, nnUNet_preprocessed, nnUNet_raw, nnUNet_results

_ROOTS = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results, nnUNet_extTrainer, nnUNet_extensions)
_END_OF_NAME = r"(?![\w.-])"  # /home/jo must not match in /home/joe
_HOME = "~"
_COMMAND = "nnUNetv2_"
_TEXT_FILES = (".json", ".jsonl", ".txt", ".yaml")


def private_folders() -> dict[str, str]:
    """Replacements for nnU-Net's folders and the home folder, longest paths first.

    Symbolic links are included under their targets as well.
    """
    named = [(os.fspath(root), f"${root.variable}") for root in _ROOTS if root.is_set()]
    named.append((os.path.expanduser("~"), _HOME))
    both = {text: name for folder, name in named for text in (folder.rstrip("/\\"), os.path.realpath(folder))}
    return {folder: both[folder] for folder in sorted(both, key=len, reverse=True) if len(folder) > 1}


def without_folders(value: Any, folders: Mapping[str, str]) -> Any:
    """Replace every folder in all texts of a value, at any depth of dicts, lists and tuples."""
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
    """Remove private folders from a line; a command stays valid even if the replaced paths contain spaces."""
    if not line.startswith(_COMMAND):
        return without_folders(line, folders)
    try:
        words = shlex.split(line)
    except ValueError:  # unbalanced quotes: not a command line
        return without_folders(line, folders)
    if without_folders(words, folders) == words:
        return line
    return " ".join(_shell_word(word, folders) for word in words) + line[len(line.rstrip("\r\n")) :]


def _shell_word(word: str, folders: Mapping[str, str]) -> str:
    """Quote a word of a command line so that the shell expands the variables that replace private folders."""
    shareable = without_folders(word, folders)
    if shareable == word:
        return shlex.quote(word)
    inside = re.sub(r'["\\`]|\$(?!nnUNet_)', r"\\\g<0>", shareable)
    if inside.startswith(f"{_HOME}/"):  # the shell does not expand ~ within quotes
        inside = f"$HOME{inside[1:]}"
    return f'"{inside}"'


def shareable_text(path: Path, folders: Mapping[str, str]) -> str | None:
    """Text of a file without private folders and host name; None if the file can be shared unchanged."""
    if path.suffix not in _TEXT_FILES:
        return None
    if path.suffix == ".json":
        return _shareable_json(path, folders)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        shareable = "".join(_shareable_line(line, folders) for line in text.splitlines(keepends=True))
        return None if shareable == text else shareable
    shareable = without_folders(text, folders)
    return None if shareable == text else shareable


def _shareable_json(path: Path, folders: Mapping[str, str]) -> str | None:
    content = read_json(path)
    shareable = without_folders(content, folders)
    if path.name == "debug.json" and "hostname" in shareable:
        shareable["hostname"] = ""
    return None if shareable == content else json.dumps(shareable, indent=4)

"""Take out of exported files what says where and on which machine they were made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_extTrainer, nnUNet_preprocessed, nnUNet_raw, nnUNet_results

_ROOTS = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results, nnUNet_extTrainer)
_END_OF_NAME = r"(?![\w.-])"  # /home/jo is no part of /home/joe
_TEXT_FILES = (".json", ".jsonl", ".txt", ".yaml")


def private_folders() -> dict[str, str]:
    """What to write in the place of nnU-Net's folders and of the home folder, the longest folders first.

    Symbolic links are also listed by what they lead to.
    """
    named = [(os.fspath(root), f"${root.variable}") for root in _ROOTS if root.is_set()]
    named.append((os.path.expanduser("~"), "~"))
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


def shareable_text(path: Path, folders: Mapping[str, str]) -> str | None:
    """The text of a file without private folders and host name; None if the file may be shared as it is."""
    if path.suffix not in _TEXT_FILES:
        return None
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        shareable = without_folders(text, folders)
        return None if shareable == text else shareable
    content = json.loads(text)
    shareable = without_folders(content, folders)
    if path.name == "debug.json" and "hostname" in shareable:
        shareable["hostname"] = ""
    return None if shareable == content else json.dumps(shareable, indent=4)

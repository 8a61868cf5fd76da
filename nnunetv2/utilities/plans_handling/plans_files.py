"""Plans files of a preprocessed dataset: list them, validate new names, and find the one that produced a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.message_parts import preprocessing_command

# JSON files beside the plans, without ending
_OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final", "duplicate_cases")


def plans_in(folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Plans in a folder, sorted by the names that commands accept (file names without `.json`).

    Plans are detected from their content, since they may have any name.
    """
    paths = (path for path in visible_files(folder, ".json") if path.stem not in _OTHER_FILES)
    contents = {path.stem: _content(path) for path in paths}
    return {name: content for name, content in contents.items() if _are_plans(content)}


def name_of_models(preprocessed_folder: str | os.PathLike, plans_identifier: str) -> str:
    """Returns the plans' name in the names of model folders: as in upstream, `plans_name` in the plans.

    Args:
        preprocessed_folder: the dataset's folder, which holds the plans.
        plans_identifier: name of the plans file without ending; returned if there are no such plans.
    """
    content = _content(Path(preprocessed_folder) / f"{plans_identifier}.json")
    return content["plans_name"] if _are_plans(content) else plans_identifier


def _content(path: Path) -> Any:
    try:
        return read_json(path)
    except (DataError, OSError):  # an unrelated or missing file, so not an error
        return None


def _are_plans(content: Any) -> bool:
    return isinstance(content, dict) and "plans_name" in content and isinstance(content.get("configurations"), dict)


def listed_plans(folder: str | os.PathLike) -> str:
    """Names of the plans in a folder, for messages."""
    return ", ".join(plans_in(folder)) or "none"


def require_plans_name(name: str) -> str:
    """Reject names that are invalid as a file name or as a part of `TRAINER__PLANS__CONFIGURATION`.

    Returns:
        The name.

    Raises:
        UsageError: names the reason.
    """
    check_name(name, "plans", UsageError)
    reason = None
    if name.startswith("."):
        reason = "files with a dot in front are hidden"
    elif "__" in name:
        reason = "two underscores separate trainer, plans and configuration in the names of models"
    elif name in _OTHER_FILES:
        reason = f"{name}.json is another file of the dataset"
    if reason is not None:
        raise UsageError(f"Plans cannot be named {name!r}: {reason}; choose a name like nnUNetPlans")
    return name


def command_that_makes(cases_folder: str | os.PathLike) -> str:
    """Command that preprocesses into a folder, derived from the plans beside it; without arguments if none match."""
    folder = Path(cases_folder)
    for name, plans in plans_in(folder.parent).items():
        configurations = plans["configurations"]
        makers = [each for each, entry in configurations.items() if entry.get("data_identifier") == folder.name]
        if makers:
            try:
                return preprocessing_command(folder.parent.name, name, makers)
            except UsageError:
                break
    return "nnUNetv2_preprocess"

"""Store the definition of each method beside its trainings, so that a method name keeps its meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json, write_json
from dinov3.utils.yaml_config import dotted_items
from nnunetv2.errors import UsageError
from nnunetv2.study.jobs import Job, State
from nnunetv2.study.methods import Method

FILE = "method.json"


def require_unchanged(methods: Sequence[Method], jobs: Sequence[Job], study_folder: Path) -> None:
    """Reject a method whose existing trainings were made under another definition.

    Raises:
        UsageError: lists the differences.
    """
    for method in methods:
        path = _path(study_folder, method)
        if not path.is_file():
            continue
        differences = definition_differences(read_json(path), method.definition)
        begun = [job for job in jobs if job.method == method.name and _has_begun(job, path.parent)]
        if differences and begun:
            raise UsageError(
                f"{method.name} has trainings in {path.parent} with another definition: {'; '.join(differences)}. "
                f"Give the changed method another name, take the change back, or remove that folder"
            )


def write_definitions(methods: Sequence[Method], study_folder: Path) -> None:
    """Store the definition of each method; call `require_unchanged` first."""
    for method in methods:
        path = _path(study_folder, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(method.definition, path)


def definition_differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe each difference: `training.lr: 0.001 there, 0.01 now`."""
    old, new = (_named_values(definition) for definition in (stored, now))
    return [
        f"{key}: {_said(old, key)} there, {_said(new, key)} now"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _path(study_folder: Path, method: Method) -> Path:
    return study_folder / "trainings" / method.name / FILE


def _has_begun(job: Job, method_folder: Path) -> bool:
    """Whether any training exists, including one of another trainer or plans, stored in another model folder."""
    return job.state() is not State.NEW or any(method_folder.glob("seed_*/*/*/fold_*/checkpoint_*.pth"))


def _named_values(definition: Mapping[str, Any]) -> dict[str, Any]:
    settings = definition.get("settings", {})
    rest = {key: value for key, value in definition.items() if key != "settings"}
    return {key: value for key, value in {**dotted_items(rest), **settings}.items() if value not in (None, {})}


def _said(values: Mapping[str, Any], key: str) -> str:
    return str(values.get(key, "not given"))

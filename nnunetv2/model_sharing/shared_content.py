"""Check the content of a shared model before it is installed: as strictly as everything that would read it later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dinov3.utils.json_files import read_json
from nnunetv2.errors import DataError
from nnunetv2.utilities.allowed_imports import import_allowed
from nnunetv2.utilities.checkpoint_content import check_checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from nnunetv2.utilities.dataset_json import check_dataset_json, read_dataset_json
from nnunetv2.utilities.plans_handling.plans_schema import check_plans, read_plans
from nnunetv2.utilities.restricted_pickle import load_restricted

# postprocessing.pkl refers to this function; while the file is checked, a harmless object replaces it
_POSTPROCESSING = (
    "nnunetv2.postprocessing.remove_connected_components",
    "remove_all_but_largest_component_from_segmentation",
)


def check_shared_file(path: Path) -> None:
    """Open a file of a model without executing code from it, and check what prediction and training would use.

    Raises:
        DataError: says what cannot be used.
    """
    check = _CHECKS.get(path.name) or _CHECKS.get(path.suffix)
    if check is not None:
        check(path)


def _check_plans_file(path: Path) -> None:
    _check_shared_plans(read_plans(path))


def _check_shared_plans(plans: Mapping[str, Any]) -> None:
    if not plans.get("configurations"):
        raise DataError("it is no plans.json of nnU-Net: it has no configurations")
    for configuration in plans["configurations"].values():
        architecture = configuration.get("architecture", {})
        keywords = architecture.get("arch_kwargs") or {}
        named = [keywords.get(name) for name in architecture.get("_kw_requires_import") or []]
        for name in (architecture.get("network_class_name"), *named):
            if name is not None and "." in name:  # others are looked up in the package of networks
                import_allowed(name)  # rejects names outside the allowed packages before anything is imported


def _check_description(path: Path) -> None:
    read_dataset_json(path, trained=True)


def _check_other_json(path: Path) -> None:
    content = read_json(path)
    if not isinstance(content, (dict, list)):
        raise DataError(f"it is no {path.name} of nnU-Net")


def _check_weights(path: Path) -> None:
    content = load_checkpoint(path)
    check_checkpoint(content, path.name)
    arguments = content["init_args"]
    if isinstance(arguments.get("plans"), dict):
        _check_shared_plans(check_plans(arguments["plans"], f"the plans in {path.name}"))
    if isinstance(arguments.get("dataset_json"), dict):
        check_dataset_json(arguments["dataset_json"], f"the dataset.json in {path.name}", trained=True)


def _check_pickle(path: Path) -> None:
    load_restricted(path, {_POSTPROCESSING: str})


_CHECKS: dict[str, Callable[[Path], None]] = {
    "plans.json": _check_plans_file,
    "dataset.json": _check_description,
    ".json": _check_other_json,
    ".pth": _check_weights,
    ".pkl": _check_pickle,
}

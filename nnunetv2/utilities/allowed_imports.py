"""Resolve dotted names from data files, restricted to packages known to be harmless."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from nnunetv2.errors import DataError
from nnunetv2.utilities.class_lookup import EXTENSIONS, EXTERNAL_TRAINERS, import_external_module

ALLOWED_PACKAGES = ("torch.nn", "dynamic_network_architectures", "nnunetv2", "dinov3", "timm")

_FUNCTIONS = "torch.nn.functional"


def import_allowed(path: str) -> Any:
    """Import the object that a dotted path such as `torch.nn.LeakyReLU` names; None if it does not exist.

    Allowed are `torch.nn.Module` classes of `ALLOWED_PACKAGES`, functions of `torch.nn.functional`, and anything from
    files in the user's trainer folders. Other functions of the packages are rejected: called with keyword arguments
    from the same data file, some of them would write files.

    Raises:
        DataError: the path is not allowed; packages outside the list are never imported.
    """
    module_name, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise DataError(f"{path!r} is not a dotted name like torch.nn.LeakyReLU")
    if not _is_allowed(module_name):
        return _import_from_user(path, module_name, name)
    module = _import_or_none(module_name)
    found = getattr(module, name, None)
    if found is not None and not _is_building_block(found, module_name):
        raise DataError(f"{path!r} was not used: it is not a torch.nn.Module class of {module_name}")
    return found


def _import_from_user(path: str, module_name: str, name: str) -> Any:
    module = import_external_module(module_name)
    if module is None:
        raise DataError(
            f"{path!r} was not imported: names in data files may come from {', '.join(ALLOWED_PACKAGES)}, or from a "
            f"module in a folder that the environment variable {EXTERNAL_TRAINERS} or {EXTENSIONS} names"
        )
    return getattr(module, name, None)


def _is_building_block(found: Any, module_name: str) -> bool:
    from torch import nn

    if inspect.isclass(found):
        return issubclass(found, nn.Module) and _is_allowed(found.__module__)
    return module_name == _FUNCTIONS and inspect.isroutine(found)


def _is_allowed(module_name: str) -> bool:
    return any(module_name == package or module_name.startswith(f"{package}.") for package in ALLOWED_PACKAGES)


def _import_or_none(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as err:
        if err.name is not None and (module_name == err.name or module_name.startswith(f"{err.name}.")):
            return None
        raise

"""Resolve dotted names that come from data files, within packages that are known to be harmless."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from nnunetv2.errors import DataError
from nnunetv2.utilities.class_lookup import EXTENSIONS, EXTERNAL_TRAINERS, import_external_module

ALLOWED_PACKAGES = ("torch.nn", "dynamic_network_architectures", "nnunetv2", "dinov3", "timm")

_FUNCTIONS = "torch.nn.functional"


def import_allowed(path: str) -> Any:
    """Returns what a dotted path like `torch.nn.LeakyReLU` names; None if it does not exist.

    That can be a `torch.nn.Module` class of one of `ALLOWED_PACKAGES`, a function of `torch.nn.functional`, or
    anything from a file in the user's own folders of trainers. Other functions of the packages are refused: called with
    keywords from the same data file, some of them would write files.

    Raises:
        DataError: the path is none of these. Nothing was imported from a package that is not allowed.
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

"""Build the network described by the `architecture` entry of a configuration."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nnunetv2.errors import DataError, NNUNetError, UsageError
from nnunetv2.utilities.allowed_imports import import_allowed
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.file_names import shortened

logger = logging.getLogger(__name__)

_LARGEST_NUMBER = 2**20
_USUAL_NUMBER = 2048  # below, networks have a usual size, so that it need not be measured
_MOST_MODULES = 200  # stages, blocks or convolutions of a stage
_MOST_PARAMETERS = 10**10
_WRONG_ARGUMENTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def get_network_from_plans(
    arch_class_name: str,
    arch_kwargs: Mapping[str, Any],
    arch_kwargs_req_import: Sequence[str],
    input_channels: int,
    output_channels: int,
    allow_init: bool = True,
    deep_supervision: bool | None = None,
) -> nn.Module:
    """Build a network with newly initialised weights.

    The class is called with `input_channels`, `num_classes`, `arch_kwargs` and, unless it is None,
    `deep_supervision`. If the network has a method `initialize`, it is applied to each of its modules.

    Args:
        arch_class_name: dotted path of a `torch.nn.Module` in one of the allowed packages.
        arch_kwargs: keyword arguments of that class, as JSON data.
        arch_kwargs_req_import: keywords whose value is a dotted path, to be replaced by the object that it names.
        output_channels: number of outputs, see `LabelManager.num_segmentation_heads`.
        allow_init: whether to apply `initialize`.
        deep_supervision: whether the network returns outputs at several resolutions.

    Raises:
        DataError: a name does not exist or is outside the allowed packages, in which case nothing is imported; or the
            keyword arguments do not fit the class, or describe a network that is too large.
    """
    keywords = dict(arch_kwargs)
    for name in arch_kwargs_req_import:
        if keywords.get(name) is not None:
            keywords[name] = _import_argument(name, keywords[name])
    if deep_supervision is not None:
        keywords["deep_supervision"] = deep_supervision
    network_class = _network_class(arch_class_name)
    network = _built(network_class, {"input_channels": input_channels, "num_classes": output_channels, **keywords})
    if allow_init and hasattr(network, "initialize"):
        network.apply(network.initialize)
    return network


def _built(network_class: type[nn.Module], keywords: Mapping[str, Any]) -> nn.Module:
    numbers = {name: list(_numbers(value)) for name, value in keywords.items()}
    for name, values in numbers.items():
        limit = _MOST_MODULES if name.startswith("n_") else _LARGEST_NUMBER
        if any(abs(value) > limit for value in values):
            raise DataError(f"The plans' architecture has {name}={shortened(keywords[name])}; the limit is {limit}")
    try:
        if any(value > _USUAL_NUMBER for values in numbers.values() for value in values):
            _require_size(network_class, keywords)
        return network_class(**keywords)
    except NNUNetError:
        raise
    except _WRONG_ARGUMENTS as err:
        reason = " ".join(str(err).split()) or "its arguments do not go together"
        raise DataError(
            f"The network {network_class.__name__} cannot be built from the arch_kwargs of the plans "
            f"({type(err).__name__}: {reason}); correct them, or run nnUNetv2_plan_experiment again"
        ) from err


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in JSON data."""
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, Mapping):
        yield from (number for inner in value.values() for number in _numbers(inner))
    elif isinstance(value, (list, tuple)):
        yield from (number for inner in value for number in _numbers(inner))


def _require_size(network_class: type[nn.Module], keywords: Mapping[str, Any]) -> None:
    with torch.device("meta"):  # allocates nothing
        num_parameters = sum(parameter.numel() for parameter in network_class(**keywords).parameters())
    if num_parameters > _MOST_PARAMETERS:
        raise DataError(
            f"The plans' architecture has {num_parameters:.1e} parameters; the limit is {_MOST_PARAMETERS:.0e}. Check "
            f"the numbers in its arch_kwargs"
        )


def _import_argument(keyword: str, path: str) -> Any:
    found = import_allowed(path)
    if found is None:
        raise DataError(f"The plans' architecture names {path!r} as {keyword}, which does not exist")
    return found


def _network_class(path: str) -> type[nn.Module]:
    found = import_allowed(path) if "." in path else None  # plans made for a checkpoint give the name alone
    if found is None:
        name = path.rpartition(".")[2]
        try:  # the package has moved classes between modules, and old plans name their former place
            found = find_by_name("network architecture", name)
        except UsageError as err:
            raise DataError(f"The plans' architecture names the network {path!r}, which does not exist; {err}") from err
        if "." in path:
            logger.warning("The network %s has moved; using %s.%s", path, found.__module__, name)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise DataError(f"The plans' architecture names {path!r} as network, which is not a torch.nn.Module")
    return found

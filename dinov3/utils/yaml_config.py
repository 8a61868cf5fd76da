"""Typed configuration: dataclass defaults, overridden by a YAML file, overridden by `key=value` words."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.config_layers import (
    checked_value,
    default_layer,
    dotted_items,
    nearest,
    one_line,
    override_layer,
    plain_config,
    section_of,
    yaml_layer,
)
from dinov3.utils.config_sources import DEFAULT, FOLLOWS, Source, sources_of_file, sources_of_words
from dinov3.utils.errors import UsageError

__all__ = [
    "config_as_yaml",
    "dotted_items",
    "load_config",
    "load_layers",
    "load_with_sources",
    "nearest",
    "plain_config",
    "require_choice",
    "require_multiple",
    "require_range",
    "save_config",
]

Config = TypeVar("Config")


def load_config(schema: type[Config], path: str | os.PathLike | None = None, overrides: Sequence[str] = ()) -> Config:
    """Builds one `schema` object: its defaults < the YAML file `path` < the `overrides`.

    Args:
        schema: A dataclass whose fields have types supported by `dinov3.utils.typed_values.convert`, or are dataclasses
            (sections) or optional sections. Dictionaries are merged with their default; `{}` empties them.
        path: YAML file; None: defaults. `${section.key}` in a value refers to another setting.
        overrides: Words such as `lora.r=16` or `training.patch_size=[512,512]`; the value is read as YAML.

    Returns:
        A validated object: the `__post_init__` of every section has run.

    Raises:
        UsageError: the file is missing or is not YAML, a key is unknown, or a value has the wrong type.
    """
    return load_with_sources(schema, path, overrides)[0]


def load_with_sources(
    schema: type[Config], path: str | os.PathLike | None = None, overrides: Sequence[str] = ()
) -> tuple[Config, dict[str, Source]]:
    """Like `load_config`, but also returns the source of each setting.

    A schema may define a class method `check_given(values, sources)` to reject settings that contradict each other. It
    receives the merged values, sections as dictionaries, and the sources of non-default settings.

    Returns:
        The validated object, and the source of each value by dotted name.

    Raises:
        UsageError: see `load_config`.
    """
    layer = {} if path is None else yaml_layer(schema, Path(path))
    return load_layers(schema, layer, {} if path is None else sources_of_file(Path(path), layer), overrides)


def load_layers(
    schema: type[Config], file_layer: dict[str, Any], file_sources: Mapping[str, Source], overrides: Sequence[str] = ()
) -> tuple[Config, dict[str, Source]]:
    """Like `load_with_sources`, for a file that has been read already.

    Args:
        schema: see `load_config`.
        file_layer: settings in the file, checked, nested like the sections.
        file_sources: source of each of them, by dotted name.
        overrides: see `load_config`.
    """
    word_layers = [override_layer(schema, word) for word in overrides]
    values = _resolved(_merged([default_layer(schema), file_layer, *word_layers]))
    sources = {**file_sources, **sources_of_words(overrides, word_layers)}
    try:
        config = _construct(schema, values)
    except UsageError as err:
        raise UsageError(f"{_place_of_first_key(str(err), sources)}{err}") from err
    if hasattr(schema, "check_given"):
        schema.check_given(values, sources)
    merged = dotted_items(values)
    for key, value in dotted_items(config).items():
        source = sources.get(key, DEFAULT)
        sources[key] = source if merged.get(key, value) == value else Source(source.rank, FOLLOWS)
    return config, sources


def save_config(config: Any, path: str | os.PathLike) -> None:
    """Writes a configuration object as YAML from which `load_config` restores an equal object."""
    text = config_as_yaml(config)
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def config_as_yaml(config: Any) -> str:
    """Returns the text that `save_config` writes."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(plain_config(config)))


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises `UsageError` unless `value` is one of `choices`; `name` is the setting's dotted name."""
    if value not in choices:
        raise UsageError(f"{name}={value!r} is not known; choose one of {', '.join(choices)}{nearest(value, choices)}")


def require_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises `UsageError` unless `low <= value <= high`; NaN is outside every range."""
    if not low <= value <= high or value == float("inf"):
        accepted = f"at least {low}" if high == float("inf") else f"between {low} and {high}"
        accepted += "" if math.isfinite(value) else " and finite"
        raise UsageError(f"{name}={value} is out of range; it must be {accepted}")


def require_multiple(name: str, size: Sequence[int], unit: int, reason: str) -> None:
    """Raises `UsageError` with the next valid size unless all numbers are multiples of `unit`."""
    if any(side % unit for side in size):
        valid = [math.ceil(side / unit) * unit for side in size]
        shown, valid_shown = (values if len(values) > 1 else values[0] for values in (list(size), valid))
        raise UsageError(f"{name}={shown} must be a multiple of {unit} ({reason}); the next one is {valid_shown}")


def _place_of_first_key(message: str, sources: Mapping[str, Source]) -> str:
    """Returns the place in the file of the setting that begins a message; empty if it is not from the file."""
    source = sources.get(re.match(r"[\w.]*", message)[0], DEFAULT)
    return f"{source.place}: " if source.rank == 1 else ""


def _merged(layers: Sequence[dict[str, Any]]) -> Any:
    from omegaconf import OmegaConf

    merged = OmegaConf.create()
    for layer in layers:
        for key in _empty_dictionaries(layer):
            OmegaConf.update(merged, key, {}, merge=False)
        merged = OmegaConf.merge(merged, layer)
    return merged


def _resolved(merged: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as err:
        raise UsageError(
            f"{err.full_key or 'A setting'} refers to a setting that cannot be read ({one_line(err)}); "
            "write ${section.key} with the name of another setting"
        ) from err


def _empty_dictionaries(layer: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in layer.items():
        if value == {}:
            yield f"{prefix}{name}"
        elif isinstance(value, dict):
            yield from _empty_dictionaries(value, f"{prefix}{name}.")


def _construct(schema: type[Config], values: dict[str, Any], prefix: str = "") -> Config:
    arguments = {}
    hints = get_type_hints(schema)
    for name, value in values.items():
        section = section_of(hints[name])
        if section is None:
            arguments[name] = checked_value(hints[name], value, prefix + name)
        else:
            arguments[name] = None if value is None else _construct(section, value, f"{prefix}{name}.")
    return schema(**arguments)

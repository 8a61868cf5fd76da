"""Typed configuration: dataclass defaults, overlaid by a YAML file, overlaid by `key=value` words of a command line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.errors import UsageError

Config = TypeVar("Config")


def load_config(schema: type[Config], path: str | os.PathLike | None = None, overrides: Sequence[str] = ()) -> Config:
    """Builds one `schema` object: its defaults < the YAML file `path` < the `overrides`.

    Args:
        schema: A dataclass whose fields are plain values or further dataclasses (sections).
        path: YAML file; None keeps the defaults.
        overrides: Words such as `lora.r=16` or `training.patch_size=[512,512]`; the value is read as YAML.

    Returns:
        A checked object: the `__post_init__` of every section has run.

    Raises:
        UsageError: the file is missing or is not YAML, a key is unknown, or a value has the wrong type.
    """
    from omegaconf import OmegaConf

    merged = OmegaConf.structured(schema)
    if path is not None:
        merged = _merge(merged, _read_yaml(schema, Path(path)), str(path))
    for word in overrides:
        merged = _merge(merged, _read_override(schema, word), f"the command line ({word})")
    return OmegaConf.to_object(merged)


def save_config(config: Any, path: str | os.PathLike) -> None:
    """Writes a configuration object as YAML, so that `load_config` of its class gives an equal object back."""
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises `UsageError` unless `value` is one of `choices`; `name` is the setting's dotted name."""
    if value not in choices:
        raise UsageError(f"{name}={value!r} is not known; choose one of {', '.join(choices)}{_nearest(value, choices)}")


def require_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises `UsageError` unless `low <= value <= high`; not-a-number is outside every range."""
    if not low <= value <= high or value == float("inf"):
        accepted = f"at least {low}" if high == float("inf") else f"between {low} and {high}"
        raise UsageError(f"{name}={value} is out of range; it must be {accepted}")


def _merge(base: Any, addition: Any, source: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.merge(base, addition)
    except OmegaConfBaseException as err:
        reason = str(err).splitlines()[0]
        raise UsageError(f"{err.full_key or 'A value'} in {source}: {reason}") from err


def _read_yaml(schema: type, path: Path) -> Any:
    import yaml
    from omegaconf import OmegaConf

    if not path.is_file():
        raise UsageError(f"The configuration file {path} does not exist; give the path of a YAML file")
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if tree is None:
            return OmegaConf.create({})
        _check_keys(schema, tree, str(path))
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UsageError(f"{path} is not valid YAML: {_one_line(err)}") from err
    for section in _sections(schema):
        if content.get(section, "") is None:  # all its lines are commented out
            del content[section]
    return content


def _read_override(schema: type, word: str) -> Any:
    import yaml
    from omegaconf import OmegaConf

    key, separator, _ = word.partition("=")
    if not separator or not key:
        raise UsageError(f"{word!r} is not a setting; write key=value, for example lora.r=16")
    known = _dotted_keys(schema)
    if key not in known:
        raise UsageError(f"There is no setting {key!r}{_nearest(key, known)}")
    if key in _sections(schema):
        raise UsageError(f"{key} is a section; set one of {', '.join(_dotted_keys(_sections(schema)[key], f'{key}.'))}")
    try:
        return OmegaConf.from_dotlist([word])
    except yaml.YAMLError as err:
        raise UsageError(f"The value in {word!r} is not valid YAML: {_one_line(err)}") from err


def _check_keys(schema: type, node: Any, path: str, section: str = "") -> None:
    """Walks the parsed YAML beside the dataclasses; the first key without a field is an error with its line."""
    import yaml

    if section and node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        name = section.rstrip(".") or "the file"
        raise UsageError(f"{path}, line {node.start_mark.line + 1}: {name} must hold `key: value` pairs")
    sections = _sections(schema)
    names = {f.name for f in fields(schema)}
    for key, value in node.value:
        if key.value not in names:
            name = f"{section}{key.value}"
            hint = _nearest(name, _dotted_keys(schema, section))
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: there is no setting {name!r}{hint}")
        if key.value in sections:
            _check_keys(sections[key.value], value, path, f"{section}{key.value}.")


def _sections(schema: type) -> dict[str, type]:
    return {name: hint for name, hint in get_type_hints(schema).items() if is_dataclass(hint)}


def _dotted_keys(schema: type, prefix: str = "") -> list[str]:
    keys = []
    sections = _sections(schema)
    for field in fields(schema):
        keys.append(prefix + field.name)
        if field.name in sections:
            keys += _dotted_keys(sections[field.name], f"{prefix}{field.name}.")
    return keys


def _nearest(word: str, known: Sequence[str]) -> str:
    """A hint with the closest known word: by the whole dotted name, else by its last part (`rank` -> none)."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        leaf = word.rpartition(".")[2]
        near = [key for key in known if key.rpartition(".")[2] == leaf]
    return f"; did you mean {near[0]}?" if near else ""


def _one_line(err: Exception) -> str:
    return " ".join(str(err).split())

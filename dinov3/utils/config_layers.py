"""Layers of settings from YAML files and `key=value` words, checked against the dataclass of the settings.

A layer is a dictionary of plain values, nested like the sections, with only the values that are set.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from dinov3.utils.errors import UsageError
from dinov3.utils.typed_values import NotAcceptedError, convert, describe
from dinov3.utils.yaml_text import read_yaml_text, require_plain_yaml

_LONGEST_ECHO = 60  # maximum characters of an invalid value in a message


def default_layer(schema: type) -> dict[str, Any]:
    """Returns the defaults of all settings. Sections are not built, because their checks apply to merged values."""
    values = {}
    for field in fields(schema):
        if is_dataclass(field.default_factory):
            values[field.name] = default_layer(field.default_factory)
        elif field.default_factory is not MISSING:
            values[field.name] = plain_config(field.default_factory())
        elif field.default is not MISSING:
            values[field.name] = plain_config(field.default)
    return values


def yaml_layer(schema: type, path: Path) -> dict[str, Any]:
    """Reads the settings in a YAML file.

    Raises:
        UsageError: the file is missing, is not YAML or not plain (see `read_yaml_text`), or a line is invalid; the
            message names the line.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    text = read_yaml_text(path)
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is None:
            return {}
        content = OmegaConf.to_container(OmegaConf.create(text)) if isinstance(tree, yaml.MappingNode) else None
    except (yaml.YAMLError, GrammarParseError) as err:
        raise UsageError(f"{path} is not valid YAML: {one_line(err)}") from err
    return _yaml_section(schema, tree, content, str(path))


def override_layer(schema: type, word: str) -> dict[str, Any]:
    """Parses a `key=value` word.

    Raises:
        UsageError: the word has another form, the setting is unknown, or the value is invalid.
    """
    key, separator, text = word.partition("=")
    if key.startswith("-"):
        raise UsageError(f"{word!r} is not a setting; write it as {key.strip('-').replace('-', '_')}=VALUE")
    if not separator or not key:
        raise UsageError(f"{word!r} is not a setting; write key=value, for example lora.r=16")
    hint = hint_of(schema, key)
    value = _parse_value(word, text)
    section = section_of(hint)
    if section is None:
        value = plain_config(checked_value(hint, value, key, text))
    elif value is not None or section is hint:
        raise UsageError(f"{key} is a section; set one of {', '.join(dotted_keys(section, f'{key}.'))}")
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def checked_value(hint: Any, value: Any, key: str, text: str | None = None, place: str = "") -> Any:
    """Converts a value to its annotated type; references to other settings are kept until they can be resolved.

    Args:
        key: dotted name of the setting.
        text: original text of the value.
        place: prefix of error messages.
    """
    if "${" in str(value):
        return value
    try:
        return convert(value, hint, text)
    except NotAcceptedError as err:
        given = str(value if text is None else text)
        if len(given) > _LONGEST_ECHO:
            given = f"{given[:_LONGEST_ECHO]}..."
        raise UsageError(f"{place}{key}={given} is not accepted; give {describe(hint)}") from err


def plain_config(config: Any) -> Any:
    """Converts a configuration to dictionaries, lists, strings, numbers, booleans and None; enum members by name."""
    if is_dataclass(config):
        return {field.name: plain_config(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, Enum):
        return config.name
    if isinstance(config, dict):
        return {key: plain_config(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain_config(value) for value in config]
    return config


def dotted_items(config: Any) -> dict[str, Any]:
    """Flattens a configuration object or nested dictionaries to plain values by dotted key (`lora.r`)."""
    items = {}
    for key, value in plain_config(config).items():
        if isinstance(value, dict) and value:
            items.update({f"{key}.{inner}": leaf for inner, leaf in dotted_items(value).items()})
        else:
            items[key] = value
    return items


def hint_of(schema: type, key: str) -> Any:
    """Returns the annotation of a dotted key, or of the values of the dictionary that the key points into.

    Raises:
        UsageError: the setting is unknown.
    """
    hint: Any = schema
    for name in key.split("."):
        section = section_of(hint)
        if section is None and get_origin(hint) is dict:
            return get_args(hint)[1]
        hints = get_type_hints(section) if section else {}
        if name not in hints:
            raise UsageError(f"There is no setting {key!r}{nearest(key, dotted_keys(schema))}")
        hint = hints[name]
    return hint


def section_of(hint: Any) -> type | None:
    """Returns the dataclass of a field's annotation, plain or optional; None if it is not a dataclass."""
    return next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)


def dotted_keys(schema: type, prefix: str = "") -> list[str]:
    """Returns the names of all settings and sections, with `prefix`."""
    keys = []
    hints = get_type_hints(schema)
    for field in fields(schema):
        keys.append(prefix + field.name)
        section = section_of(hints[field.name])
        if section is not None:
            keys += dotted_keys(section, f"{prefix}{field.name}.")
    return keys


def nearest(word: str, known: Sequence[str]) -> str:
    """Suggests the closest known word, by the full dotted name or its last part; empty if none is close."""
    near = [key for key in known if key.lower() == word.lower()]
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        leaf = word.rpartition(".")[2]
        near = [key for key in known if key.rpartition(".")[2] == leaf]
    return f"; did you mean {near[0]}?" if near else ""


def nested(key: str) -> str:
    """Formats a dotted key as one line of YAML: `lora: {r: ...}`."""
    *sections, name = key.split(".")
    return "".join(f"{section}: {{" for section in sections) + f"{name}: ..." + "}" * len(sections)


def one_line(err: Exception) -> str:
    """Formats a library's error message in one line, without OmegaConf's notes for developers."""
    return " ".join(str(err).split("\n    full_key:")[0].split())


def _yaml_section(schema: type, node: Any, content: Any, path: str, prefix: str = "") -> dict[str, Any]:
    """Traverses YAML nodes, which have line numbers, in parallel with their values and the dataclasses."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        name = prefix.rstrip(".") or "the file"
        raise UsageError(f"{path}, line {node.start_mark.line + 1}: {name} must hold `key: value` pairs")
    hints = get_type_hints(schema)
    values = {}
    for key_node, value_node in node.value:
        name, place = str(key_node.value), f"{path}, line {key_node.start_mark.line + 1}: "
        if name not in hints:
            known = dotted_keys(schema, prefix)
            if f"{prefix}{name}" in known:
                raise UsageError(f"{place}{name!r} stands for settings inside each other; write `{nested(name)}`")
            raise UsageError(f"{place}there is no setting {f'{prefix}{name}'!r}{nearest(f'{prefix}{name}', known)}")
        section = section_of(hints[name])
        if section is None:
            text = value_node.value if isinstance(value_node, yaml.ScalarNode) else None
            values[name] = plain_config(checked_value(hints[name], content[name], f"{prefix}{name}", text, place))
        elif content[name] is not None:
            values[name] = _yaml_section(section, value_node, content[name], path, f"{prefix}{name}.")
        elif section is not hints[name]:
            values[name] = None  # an empty section, with all lines commented out, keeps its defaults
    return values


def _parse_value(word: str, text: str) -> Any:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    require_plain_yaml(text, f"The value in {word!r}")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except (yaml.YAMLError, GrammarParseError) as err:
        raise UsageError(f"The value in {word!r} is not valid YAML: {one_line(err)}") from err

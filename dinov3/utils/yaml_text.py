"""Reads the text of YAML files within limits, so that a hostile file neither runs, hangs nor learns anything."""

from __future__ import annotations

import os
from pathlib import Path

from dinov3.utils.errors import UsageError

_LARGEST_FILE = 2**20  # bytes
_DEEPEST = 30  # sections and lists inside each other
_MOST_REFERENCES = 20  # `${key}` and `*alias`; values that double each other grow exponentially


def read_yaml_text(path: str | os.PathLike) -> str:
    """Reads a YAML file and checks it with `require_plain_yaml`.

    Raises:
        UsageError: the file does not exist, is too large, is not UTF-8, or is not plain.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"The configuration file {path} {problem}; give the path of a YAML file")
    if path.stat().st_size > _LARGEST_FILE:
        raise UsageError(f"{path} has {path.stat().st_size} bytes; a configuration file has at most {_LARGEST_FILE}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not valid YAML: it is not UTF-8 ({err.reason} at byte {err.start})") from err
    require_plain_yaml(text, str(path))
    return text


def require_plain_yaml(text: str, name: str) -> None:
    """Rejects what no settings need: deep nesting, many references, and references that call functions.

    OmegaConf resolves `${oc.env:SECRET}` by calling a function; the secret would then stand in the settings of a model
    that is shared. `${section.key}`, which refers to another setting, is accepted.

    Args:
        name: what the text is, for messages.

    Raises:
        UsageError: the text is not plain, or is not YAML.
    """
    import yaml

    depth = references = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):  # a loop, whereas composing nodes is a recursion
            line = event.start_mark.line + 1
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent):
                references += 1
            elif isinstance(event, yaml.ScalarEvent):
                references += event.value.count("${")
                if calls_function(event.value):
                    raise UsageError(
                        f"{name}, line {line}: {event.value[:60]!r} calls a function of OmegaConf, which is not "
                        "accepted; write the value itself, or ${section.key} to refer to another setting"
                    )
            if depth > _DEEPEST:
                raise UsageError(f"{name}, line {line}: more than {_DEEPEST} levels inside each other")
            if references > _MOST_REFERENCES:
                raise UsageError(f"{name}, line {line}: more than {_MOST_REFERENCES} references to other values")
    except yaml.YAMLError as err:
        raise UsageError(f"{name} is not valid YAML: {' '.join(str(err).split())}") from err


def calls_function(value: str) -> bool:
    """Whether a string has a reference with a colon, `${function:arguments}`, at any depth."""
    depth = 0
    for position, character in enumerate(value):
        if value.startswith("${", position):
            depth += 1
        elif character == "}" and depth:
            depth -= 1
        elif character == ":" and depth:
            return True
    return False

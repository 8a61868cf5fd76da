"""The class names of a `data.yaml`, as Ultralytics and Roboflow write it."""

from __future__ import annotations

from pathlib import Path

from dinov3.utils.yaml_text import read_yaml_text
from nnunetv2.errors import DataError

DATA_YAML = "data.yaml"


def read_names(path: Path) -> list[str]:
    """Returns the entry `names`, a list or a mapping from 0, 1, ... to names, in the order of the numbers.

    Raises:
        DataError: there is no such entry.
    """
    import yaml

    content = yaml.safe_load(read_yaml_text(path))
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        raise DataError(
            f"{path} has no list of classes; it needs names: [artery, vein], or names: {{0: artery, 1: vein}}"
        )
    return [str(name) for name in names]

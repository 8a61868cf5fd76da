"""Read `metrics.jsonl`, one JSON object per line, and check it: the file may come with a shared model."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from nnunetv2.errors import DataError

_log = logging.getLogger(__name__)

RUN, EPOCH, VALIDATION = "run", "epoch", "validation"  # values of "type" in every line

_LONGEST_LINE = 2**22  # bytes; the line of a run takes some thousands
_DEEPEST = 32  # levels of nesting

Check = Callable[[Any], bool]


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the lines of a `metrics.jsonl`; empty if the file does not exist.

    A last line without line break is what a killed process leaves: it is skipped with a warning unless it is whole.

    Raises:
        DataError: a line is not JSON, or an entry that programs use has another type; names file and line.
    """
    if not os.path.isfile(path):
        return []
    with open(path, "rb") as file:
        return list(_lines(file, path))


def _lines(file: IO[bytes], path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    number = 0
    while piece := file.readline(_LONGEST_LINE + 1):
        number += 1
        is_cut_off = not piece.endswith(b"\n")
        place = f"{os.fspath(path)}, line {number}"
        if len(piece) > _LONGEST_LINE:
            raise DataError(f"{place} has more than {_LONGEST_LINE} bytes; {_CURE}")
        if not piece.strip():
            continue
        try:
            line = json.loads(piece)
        except (ValueError, RecursionError) as err:
            if is_cut_off:
                _log.warning("%s is cut off, as a killed process leaves it; it is skipped", place)
                continue
            reason = "is nested too deeply" if isinstance(err, RecursionError) else f"is not valid JSON ({err})"
            raise DataError(f"{place} {reason}; {_CURE}") from err
        problem = _problem(line)
        if problem is not None:
            raise DataError(f"{place} {problem}; {_CURE}")
        yield line


_CURE = "correct or remove the line, or remove the file"


def _problem(line: Any) -> str | None:
    """The first thing wrong with a line, as the rest of a sentence."""
    if not isinstance(line, dict) or not isinstance(line.get("type"), str):
        return 'is not an object with a "type"'
    if _depth(line) > _DEEPEST:
        return "is nested too deeply"
    if line["type"] == EPOCH and "epoch" not in line:
        return 'has no "epoch"'
    for name, (is_valid, expected) in _KNOWN.get(line["type"], {}).items():
        value = line.get(name)
        is_required = line["type"] == EPOCH and name == "epoch"
        if not (is_valid(value) or (value is None and not is_required)):
            shown = json.dumps(value)
            return f"has the {name} {shown if len(shown) <= 60 else shown[:57] + '...'}; it must be {expected}"
    return None


def _depth(value: Any) -> int:
    """Nesting of lists and dictionaries, without recursion."""
    level, depth = [value], 0
    while level := [inner for outer in level for inner in _entries(outer)]:
        depth += 1
    return depth


def _entries(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_split(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    parts = [value[part] for part in ("training", "validation") if value.get(part) is not None]
    return all(
        isinstance(part, Mapping) and _is_count(part.get("num_cases")) and _is_text(part.get("sha256"))
        for part in parts
    )


def _is_augmentation(value: Any) -> bool:
    return isinstance(value, Mapping) and "transforms" in value


_NUMBER, _COUNT, _TEXT = (_is_number, "a number"), (_is_count, "a whole number of at least 0"), (_is_text, "a text")
_SIZES = (_is_sizes, "a list of whole numbers")

# Entries that programs compute with; all others are only shown or copied.
_KNOWN: Mapping[str, Mapping[str, tuple[Check, str]]] = {
    EPOCH: {
        "epoch": _COUNT,
        "world_size": _COUNT,
        **dict.fromkeys(
            ("mean_fg_dice", "train_loss", "val_loss", "seconds", "train_seconds", "peak_gpu_memory_mib"), _NUMBER
        ),
    },
    RUN: {
        **dict.fromkeys(
            (
                "first_epoch",
                "num_epochs",
                "num_iterations_per_epoch",
                "batch_size",
                "num_parameters",
                "num_trained_parameters",
            ),
            _COUNT,
        ),
        **dict.fromkeys(("patch_size", "mirror_axes"), _SIZES),
        **dict.fromkeys(("fingerprint_sha256", "precision", "device", "device_name", "pretrained_weights"), _TEXT),
        "split": (_is_split, "an object with num_cases and sha256 of training and validation"),
        "augmentation": (_is_augmentation, "an object with transforms"),
    },
    VALIDATION: {"seconds_per_case": _NUMBER, "epochs_trained": _COUNT, "checkpoint": _TEXT},
}

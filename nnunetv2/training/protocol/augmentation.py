"""Canonical text description of an augmentation, one entry per step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nnunetv2.training.protocol.hashes import content_hash

_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "'\""
_CALL = re.compile(r"\s*([\w.]+)\(\s*(.*?)\s*\)\s*", re.DOTALL)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_WHOLE_NUMBER = re.compile(r"(?<![\w.])(\d+)\.0(?![\w.])")  # normalises 1.0 to 1
_PIPELINE = "ComposeTransforms"
# Required by the loss, not part of the augmentation: only used with deep supervision or Skeleton Recall.
_NO_AUGMENTATION = frozenset({"DownsampleSegForDSTransform", "TubeTransform"})
# Implementation details of a step, and the patch size, which is recorded separately.
_NO_PARAMETERS = frozenset({"patch_size", "benchmark", "benchmark_use_fft", "benchmark_num_runs"})


def augmentation_description(transforms: Any) -> dict[str, Any] | None:
    """Describes the steps of a training's transforms, with their hash; None if unknown."""
    if transforms is None:
        return None
    steps = augmentation_steps(repr(transforms))
    return {"transforms": steps, "sha256": content_hash(steps)}


def augmentation_steps(description: str) -> list[str]:
    """Lists the steps of a transform pipeline with their parameters, one string each.

    Args:
        description: `repr` of the pipeline, as in debug.json. Caches, object addresses and steps that depend on the
            network are omitted.
    """
    call = _CALL.fullmatch(description)
    if call is None or call[1] != _PIPELINE:
        steps = [description]
    else:
        _, _, inside = call[2].partition("=")
        steps = list(_split(inside.strip().removeprefix("[").removesuffix("]")))
    return [text for text in map(_readable, steps) if text]


def parts_of_step(step: str) -> tuple[str, list[str]]:
    """Splits a step of `augmentation_steps` into name and parameters; no parameters if the format is unknown."""
    call = _CALL.fullmatch(step)
    return (step, []) if call is None else (call[1], list(_split(call[2])))


def _readable(step: str) -> str:
    """Removes irrelevant parameters of a step; empty if the step is not part of the augmentation."""
    call = _CALL.fullmatch(step)
    if call is None:
        return _WHOLE_NUMBER.sub(r"\1", _ADDRESS.sub("", " ".join(step.split())))
    name, arguments = call.groups()
    if name in _NO_AUGMENTATION:
        return ""
    kept = []
    for argument in _split(arguments):
        key, separator, value = argument.partition("=")
        key = key.strip()
        if not separator or not key.isidentifier():
            kept.append(_readable(argument))
        elif not key.startswith("_") and key not in _NO_PARAMETERS:
            kept.append(f"{key}={_readable(value.strip())}")
    return f"{name}({', '.join(kept)})"


def _split(text: str) -> Iterator[str]:
    """Splits a text at commas outside brackets and quotes."""
    depth, quote, start = 0, "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter == "," and depth == 0:
            yield text[start:position].strip()
            start = position + 1
        else:
            depth += (letter in _OPENING) - (letter in _CLOSING)
    if text[start:].strip():
        yield text[start:].strip()

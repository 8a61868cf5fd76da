"""Formats the costs of models as aligned text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2.model.cost.model_cost import ModelCost
    from nnunetv2.run.model_info_models import ModelInfo

_MILLION = 1e6
_GIGA = 1e9
_GIB = 2**30
_SUMS = ("parameters", "trainable_parameters", "forward_flops", "training_flops", "activation_bytes")
_PART_HEADER = ("part", "parameters M", "trainable M", "forward GFLOPs", "training GFLOPs", "activations GiB")
_MODEL_HEADER = ("model", *_PART_HEADER[1:], "training GiB", "inference GiB")


def as_text(models: Sequence[ModelInfo]) -> str:
    """Formats a table of the parts of each model; with several models, a table of all comes first."""
    blocks = [_model_block(model) for model in models]
    if len(models) > 1:
        rows = [[_label(model), *_amounts(_sums(model.cost)), *_peaks(model.cost)] for model in models]
        blocks.insert(0, aligned([_MODEL_HEADER, *rows]))
    return "\n\n".join(blocks)


def as_json(models: Sequence[ModelInfo]) -> dict[str, Any]:
    """Converts to plain data: whole numbers of parameters, operations (FLOPs) and bytes."""
    return {
        "flops_per_multiply_add": 2,
        "models": [
            {
                "name": model.name,
                "configuration": model.configuration,
                "num_outputs": model.num_outputs,
                **asdict(model.cost),
                "total": dict(zip(_SUMS, _sums(model.cost), strict=True)),
            }
            for model in models
        ],
    }


def json_text(content: dict[str, Any]) -> str:
    """Returns the text that `write_json` would write."""
    return json.dumps(content, indent=2)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows as columns: the first left-aligned, the others right-aligned; a rule below the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def _label(model: ModelInfo) -> str:
    return f"{model.name}: {model.cost.network}"


def _model_block(model: ModelInfo) -> str:
    cost, memory = model.cost, model.cost.memory
    size = " x ".join(map(str, cost.patch_size))
    title = (
        f"{_label(model)}, {model.configuration}, patch {size}, {cost.input_channels} in, "
        f"{model.num_outputs} out, batch {cost.batch_size}, {cost.precision}"
    )
    rows = [[part.name, *_amounts([getattr(part, name) for name in _SUMS])] for part in cost.parts]
    rows = [row for row in rows if any(map(float, row[1:]))]
    table = aligned([_PART_HEADER, *rows, ["total", *_amounts(_sums(cost))]])
    shares = ", ".join(f"{name} {getattr(memory, name) / _GIB:.3f}" for name in ("weights", "gradients", "optimizer"))
    return (
        f"{title}\n\n{table}\n\nGFLOPs per patch; activations of a batch. Memory in GiB: {shares}, "
        f"activations {memory.activations / _GIB:.3f};\npeak of training {memory.training_peak / _GIB:.3f}, "
        f"of predicting one patch {memory.inference_peak / _GIB:.3f}"
    )


def _sums(cost: ModelCost) -> list[int]:
    return [cost.total(name) for name in _SUMS]


def _amounts(numbers: Sequence[int]) -> list[str]:
    units = (_MILLION, _MILLION, _GIGA, _GIGA, _GIB)
    return [f"{number / unit:.3f}" for number, unit in zip(numbers, units, strict=True)]


def _peaks(cost: ModelCost) -> list[str]:
    return [f"{size / _GIB:.3f}" for size in (cost.memory.training_peak, cost.memory.inference_peak)]

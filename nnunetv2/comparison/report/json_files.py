"""The results as JSON for programs: everything except the scores of single cases."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from nnunetv2.comparison.metric import METRICS, Metric
from nnunetv2.comparison.report.definitions import package_versions
from nnunetv2.comparison.report.verdict import verdict_in_words
from nnunetv2.comparison.results import Comparison

FORMAT = 1  # increase it if a key changes its meaning


def json_texts(comparison: Comparison) -> dict[str, str]:
    """Content of each JSON file, by file name."""
    return {
        "comparability.json": _json(comparability_content(comparison)),
        "comparison.json": _json(comparison_content(comparison)),
    }


def comparability_content(comparison: Comparison) -> dict[str, Any]:
    sheet = comparison.comparability
    return {
        "format": FORMAT,
        "is_comparable": not sheet.broken,
        "broken": [equality.item for equality in sheet.broken],
        "allowed": list(sheet.allowed),
        "equalities": plain(sheet.equalities),
    }


def comparison_content(comparison: Comparison) -> dict[str, Any]:
    table = comparison.scores
    return {
        "format": FORMAT,
        "dataset": comparison.dataset,
        "verdict": list(verdict_in_words(comparison)),
        "settings": plain(comparison.settings),
        "metrics": [_metric_content(METRICS[name]) for name in comparison.settings.metrics],
        "versions": dict(package_versions()),
        "methods": list(table.methods),
        "classes": list(table.classes),
        "averaged_classes": list(table.averaged_classes),
        "lacks": {method: sorted(names) for method, names in sorted(table.lacks.items())},
        "length_unit": table.length_unit,
        "has_fields_of_view": table.has_fields,
        "cases": list(table.cases),
        "runs": [
            {"method": run.method, "run": run.number, "seed": run.seed, "folds": sorted(set(run.fold_of.values()))}
            for run in table.runs
        ],
        "comparability": comparability_content(comparison),
        **{
            name: plain(getattr(comparison, name))
            for name in ("summaries", "pairs", "ranks", "stability", "detection", "costs", "curves", "reader")
        },
    }


def _metric_content(metric: Metric) -> dict[str, Any]:
    content = {name: getattr(metric, name) for name in ("name", "meaning", "higher_is_better", "unit")}
    if metric.origin is not None:
        content |= {"definition": metric.definition, "file": metric.origin.path.name, "sha256": metric.origin.sha256}
    return content


def plain(value: Any) -> Any:
    """Convert to JSON types: dataclasses to objects, mappings sorted by key, NaN and infinity to null."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

"""The result files of an evaluation."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import replace_when_complete, without_nonfinite, write_json

RESULTS_FILENAME = "results-semantic-segmentation.csv"
RESULTS_OF_CLASSES_FILENAME = "results-semantic-segmentation-classes.csv"
RESULTS_JSON_FILENAME = "results-semantic-segmentation.json"


def write_results(results: Mapping[str, Any], output_dir: str | os.PathLike) -> None:
    """Writes the results of `SegmentationMetrics.compute` into a folder, replacing those of an earlier run.

    - results-semantic-segmentation.csv: a header with the names of the metrics and one row with their values.
    - results-semantic-segmentation-classes.csv: one row per class, one column per value; if there are classes.
    - results-semantic-segmentation.json: the whole dictionary.

    Metrics are in percent, in full precision. Undefined metrics are empty fields in the tables and null in the JSON
    file.

    Args:
        results: Numbers by name, and under "classes" a list with one dictionary of numbers per class.
        output_dir: Created if it does not exist.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    main = {name: value for name, value in results.items() if name != "classes"}
    _write_table([main], folder / RESULTS_FILENAME)
    if results.get("classes"):
        _write_table(results["classes"], folder / RESULTS_OF_CLASSES_FILENAME)
    else:
        (folder / RESULTS_OF_CLASSES_FILENAME).unlink(missing_ok=True)
    write_json(without_nonfinite(results), folder / RESULTS_JSON_FILENAME)


def _write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    with replace_when_complete(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(without_nonfinite(rows))  # None is written as an empty field

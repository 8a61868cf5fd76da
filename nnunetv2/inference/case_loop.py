"""Predict preprocessed cases one by one, export them, and continue when a case fails."""

from __future__ import annotations

import logging
import operator
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from nnunetv2.inference.case_export import CaseExporter, ExportSetting
from nnunetv2.inference.case_preprocessing import Item
from nnunetv2.inference.output_names import require_writable
from nnunetv2.utilities.processes.case_failures import CaseFailures

logger = logging.getLogger(__name__)


def predict_cases(
    items: Iterable[Item], predict_logits: Callable[[torch.Tensor], torch.Tensor], setting: ExportSetting
) -> list[Any]:
    """Predict and export every item, then close the iterator.

    Args:
        items: see `nnUNetPredictor.predict_from_data_iterator`.
        predict_logits: maps (C, *spatial) to logits (K, *spatial).

    Returns:
        The results of the exports, in the order of the items.

    Raises:
        PartialPredictionError: some of several cases with an output path failed; the others are complete, and
            `failures.json` lists the reasons. Errors of cases without output path are raised immediately.
    """
    failures = CaseFailures()
    folders: set[str] = set()
    started = time.monotonic()
    number = 0
    try:
        with CaseExporter(setting, failures.of) as exporter:
            for number, item in enumerate(items, start=1):
                output = item["ofile"]
                case = f"image {number}" if output is None else os.path.basename(output)
                logger.info("Predicting %s%s", case, _progress(number, items, started))
                if output is None:
                    exporter.convert(_logits(item, predict_logits), item["data_properties"])
                    continue
                folders.add(os.path.dirname(output))
                with failures.of(case):
                    require_writable(output, setting.dataset_json["file_ending"])
                    exporter.write(case, _logits(item, predict_logits), item["data_properties"], output)
            results = exporter.results()
    finally:
        close_workers_of(items)
        for folder in folders:
            failures.write(folder)
    failures.raise_any(number)
    return results


def _logits(item: Item, predict_logits: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    data = item["data"]
    if isinstance(data, str):
        path, data = data, np.load(data, allow_pickle=False)
        os.remove(path)
    data = data if isinstance(data, torch.Tensor) else torch.from_numpy(data)
    return predict_logits(data)


def _progress(number: int, items: Iterable[Item], started: float) -> str:
    """Format ` (3 of 10, about 40 s left)`; empty if the number of cases is unknown."""
    num_left = operator.length_hint(items)
    if not num_left and number == 1:
        return ""
    eta = ""
    if number > 1:
        seconds = (time.monotonic() - started) / (number - 1) * (num_left + 1)
        eta = f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    return f" ({number} of {number + num_left}{eta})"


def close_workers_of(items: Iterable[Item]) -> None:
    """Stop an iterator's workers: ours and generators have the method `close`, batchgenerators' loaders `_finish`."""
    for method in ("close", "_finish"):
        if hasattr(items, method):
            getattr(items, method)()
            return

"""Commands that upstream defines beside the code they run, and that have their own module here.

Users rely on import paths such as `from nnunetv2.inference.predict_from_raw_data import predict_entry_point`. Here this
command is in `predict_entry_points.py`, which imports the predictor only when it runs, so that `--help` is instant. An
import in the opposite direction would be circular, so upstream's path is resolved on access. Code of this project
imports commands from their own modules.
"""

from __future__ import annotations

import importlib
from typing import Any

COMMANDS_ELSEWHERE = {
    "nnunetv2.evaluation.evaluate_predictions": {
        "evaluate_folder_entry_point": "nnunetv2.evaluation.evaluate_entry_points",
        "evaluate_simple_entry_point": "nnunetv2.evaluation.evaluate_entry_points",
    },
    "nnunetv2.inference.predict_from_raw_data": {
        "predict_entry_point": "nnunetv2.inference.predict_entry_points",
        "predict_entry_point_modelfolder": "nnunetv2.inference.predict_entry_points",
    },
    "nnunetv2.postprocessing.remove_connected_components": {
        "entry_point_apply_postprocessing": "nnunetv2.postprocessing.entry_points",
        "entry_point_determine_postprocessing_folder": "nnunetv2.postprocessing.entry_points",
    },
}
"""Upstream's module -> command name -> module that defines it here."""


def command_elsewhere(module: str, name: str) -> Any:
    """Resolve a command that upstream has in `module`; used as that module's `__getattr__`.

    Raises:
        AttributeError: `COMMANDS_ELSEWHERE` does not list the name for this module.
    """
    home = COMMANDS_ELSEWHERE.get(module, {}).get(name)  # not found if the module runs as `__main__`
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)

"""Words that settings of the networks accept; they stand apart so that settings load without torch."""

from __future__ import annotations

from nnunetv2.model.input_norms import INPUT_CONSTANTS

CHANNEL_ADAPTATIONS = ("repeat", "conv1x1", "inflate")
INPUT_NORMS = ("dataset", *INPUT_CONSTANTS)
STRATEGIES = ("layers", "pyramid", "progressive")

"""Which settings the message of a training that ran out of memory names."""

from __future__ import annotations

import pytest

from nnunetv2.run.training_memory import _measures


@pytest.mark.parametrize(
    ("model", "of_volumes", "expected"),
    [
        ({}, True, []),  # a U-Net
        ({"tuning": "lora", "slices_per_chunk": None}, False, ["model.tuning=frozen"]),
        ({"tuning": "lora", "slices_per_chunk": None}, True, ["model.slices_per_chunk=4", "model.tuning=frozen"]),
        ({"tuning": "full", "slices_per_chunk": 8}, True, ["model.slices_per_chunk below 8", "model.tuning=lora"]),
        ({"tuning": "frozen", "slices_per_chunk": 1}, True, []),
        ({"tuning": "frozen", "input_scale": 2, "gradient_checkpointing": False}, False,
         ["model.gradient_checkpointing=true", "model.input_scale below 2"]),
    ],
)  # fmt: skip
def test_settings_that_change_no_result_come_first(model: dict, of_volumes: bool, expected: list[str]) -> None:
    assert _measures(model, of_volumes) == expected

"""Which trained parameters may be without a gradient, which distributed training has to know."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from nnunetv2.training.setup.distributed_network import has_idle_parameters


class _Transformer(nn.Module):
    """A network with a backbone of eight blocks."""

    def __init__(self, is_trained: bool) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2).requires_grad_(is_trained)
        self.backbone.num_blocks = 8
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("network", "deep_supervision", "model", "expected"),
    [
        (nn.Linear(2, 2), True, None, False),
        (nn.Linear(2, 2), False, None, True),
        (_Transformer(False), False, {"tuning": "frozen"}, False),
        (_Transformer(True), False, {"tuning": "full"}, True),
        (_Transformer(True), False, {"tuning": "lora", "backbone_out_layers": "FOUR_EVEN_INTERVALS"}, False),
        (_Transformer(True), False, {"tuning": "lora", "backbone_out_layers": [1, 3, 5, 7]}, False),
        (_Transformer(True), False, {"tuning": "lora", "backbone_out_layers": [1, 3, 5, 6]}, True),
        (_Transformer(True), False, None, True),
    ],
)
def test_idle_parameters(network: nn.Module, deep_supervision: bool, model: Any, expected: bool) -> None:
    settings = None if model is None else {"model": model}
    assert has_idle_parameters(network, deep_supervision, settings) is expected

"""LoRA in every head's network: no effect before training, an effect after, and the same without it once merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dinov3.layers.lora import merge_lora
from tests.contracts.cases import TRANSFORMERS, Combination, lora_names
from tests.contracts.ten_steps import logits

IMAGE_SIZE = (50, 71)


def network_of(combination: Combination, folders: Path) -> nn.Module:
    trainer = combination.trainer(folders)
    trainer.initialize()
    return trainer.network.double().eval()  # norms over few channels magnify rounding


def without_lora(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network with LoRA under the names that they have without."""
    return {name.replace(".base_layer.", "."): value for name, value in weights.items() if ".lora_" not in name}


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_lora_has_an_effect_once_trained_and_none_by_being_merged(model: str, folders: Path, seeded: int) -> None:
    adapted = Combination(model, "lora", 3, "labels")
    network = network_of(adapted, folders)
    plain = network_of(Combination(model, "frozen", 3, "labels"), folders)
    plain.load_state_dict(without_lora(network.state_dict()))
    image = torch.randn(2, 3, *IMAGE_SIZE, dtype=torch.float64)
    assert torch.equal(logits(network, image), logits(plain, image))

    for name in lora_names(adapted, "B"):
        nn.init.normal_(network.get_parameter(name), std=0.1)
    trained = logits(network, image)
    assert (trained - logits(plain, image)).abs().max() > 1e-3

    merge_lora(network)
    assert [name for name, _ in network.named_parameters() if "lora" in name or "base_layer" in name] == []
    torch.testing.assert_close(logits(network, image), trained, rtol=1e-8, atol=1e-8)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(logits(plain, image), logits(network, image))

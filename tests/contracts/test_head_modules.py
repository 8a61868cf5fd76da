"""The heads of UperNet and SegFormer are those of transformers: in type, and in what they make of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.model.heads.segformer import STRATEGIES
from tests.contracts.cases import MODELS, Combination, make_batch

EMBED_DIM, WIDTH, NUM_CLASSES = 128, 16, 3  # of the tiny backbone; of the heads in `MODELS`; of `labels`


def trained_network(model: str, folders: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> nn.Module:
    """A network after a few steps, so that neither weights nor statistics are those of the start; in eval mode."""
    monkeypatch.setitem(MODELS[model].settings, "model", MODELS[model].settings["model"] | settings)
    combination = Combination(model, "frozen", 3, "labels")
    trainer = combination.trainer(folders, warmup_iters=0)
    trainer.initialize()
    trainer.network.train()
    for _ in range(2):
        trainer.train_step(make_batch(trainer, combination))
    return trainer.network.eval()


def seen_at(head: nn.Module, network: nn.Module) -> tuple[Any, Tensor]:
    """What goes into the head and what comes out while the network segments an image."""
    calls = []
    handle = head.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output)))
    with torch.no_grad():
        network(torch.randn(2, 3, 80, 64))
    handle.remove()
    [(inputs, output)] = calls
    return inputs, output


def assert_same_function(theirs: nn.Module, inputs: Any, output: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(theirs.eval()(*inputs), output)
        for parameter in theirs.parameters():
            parameter.mul_(1.5)
        assert not torch.equal(theirs(*inputs), output)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_segformers_head_is_that_of_transformers(strategy, folders, seeded, monkeypatch):
    from transformers import SegformerConfig
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    network = trained_network("segformer", folders, monkeypatch, feature_strategy=strategy)
    assert type(network.head.decode_head) is SegformerDecodeHead
    config = SegformerConfig(hidden_sizes=[EMBED_DIM] * 4, decoder_hidden_size=WIDTH, num_labels=NUM_CLASSES)
    theirs = SegformerDecodeHead(config)
    theirs.load_state_dict(network.head.decode_head.state_dict())
    assert_same_function(theirs, *seen_at(network.head.decode_head, network))


@pytest.mark.parametrize("progressive", [True, False])
def test_upernets_head_is_that_of_transformers(progressive, folders, seeded, monkeypatch):
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetHead

    network = trained_network("upernet", folders, monkeypatch, use_progressive_upsample=progressive)
    assert type(network.head.head) is UperNetHead
    theirs = UperNetHead(UperNetConfig(hidden_size=WIDTH, num_labels=NUM_CLASSES), in_channels=[EMBED_DIM] * 4)
    if progressive:  # the decoder behind the head classifies
        theirs.classifier = nn.Identity()
    # Without it, dropout stands before the classifier.
    weights = network.head.head.state_dict()
    theirs.load_state_dict({name.replace("classifier.1.", "classifier."): value for name, value in weights.items()})
    assert_same_function(theirs, *seen_at(network.head.head, network))

"""CUDA's default, a compiled network, tried on the CPU: `nnUNet_compile=t`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo import OptimizedModule
from torch._dynamo.utils import counters

from nnunetv2.model.head_config import head_config_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tests.contracts.cases import MODELS, Combination, make_batch

STEPS = 2
GRAPHS = {"dense": 2, "queries": 1}  # a dense network has one more: the Dice of its loss, which is compiled by itself


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tracing is what depends on our code; the code generator would only take longer."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def initialized(model: str, folders: Path) -> nnUNetTrainer:
    torch.manual_seed(0)
    trainer = combination(model).trainer(folders)
    trainer.initialize()
    return trainer


def combination(model: str) -> Combination:
    return Combination(model, "full" if model == "unet" else "lora", 1, "labels")


def new_graphs() -> int:
    """Graphs traced since the last call. No part of a network or of a loss may be left out of them."""
    assert not counters["graph_break"]
    found = counters["stats"]["unique_graphs"]
    counters.clear()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet", "segformer", "m2f"])
def test_compiled_networks_train_like_others(model: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {}
    for wish in ("f", "t"):
        monkeypatch.setenv("nnUNet_compile", wish)
        trainer = initialized(model, folders)
        assert isinstance(trainer.network, OptimizedModule) == (wish == "t")
        trainer.network.train()
        batch = make_batch(trainer, combination(model))
        losses[wish] = []
        for _ in range(STEPS):
            torch.manual_seed(1)  # of the points at which masks are compared
            losses[wish].append(float(trainer.train_step(batch)["loss"]))
    assert losses["t"] == pytest.approx(losses["f"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_networks_are_traced_once_and_whole(model: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and validation take one graph each, and going to and fro between them takes no new one."""
    monkeypatch.setenv("nnUNet_compile", "t")
    trainer = initialized(model, folders)
    batch = make_batch(trainer, combination(model))
    expected = GRAPHS["dense" if model == "unet" else head_config_class(model).kind]
    counters.clear()

    def train() -> None:
        trainer.network.train()
        trainer.train_step(batch)

    def validate() -> None:
        trainer.network.eval()
        with torch.no_grad():
            trainer.validation_step(batch)

    for step, graphs in ((train, expected), (train, 0), (validate, expected), (validate, 0), (train, 0)):
        step()
        assert new_graphs() == graphs

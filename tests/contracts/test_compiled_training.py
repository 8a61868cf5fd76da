"""CUDA's default, a compiled network, tried on the CPU: `nnUNet_compile=t`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch._dynamo import OptimizedModule

from tests.contracts.cases import Combination, make_batch

STEPS = 2


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet", "segformer"])
def test_compiled_networks_train_like_others(model: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tracing is what depends on our code; the code generator would only take longer.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    combination = Combination(model, "full", 1, "labels")
    losses = {}
    for wish in ("f", "t"):
        monkeypatch.setenv("nnUNet_compile", wish)
        torch.manual_seed(0)
        trainer = combination.trainer(folders)
        trainer.initialize()
        assert isinstance(trainer.network, OptimizedModule) == (wish == "t")
        trainer.network.train()
        batch = make_batch(trainer, combination)
        losses[wish] = [float(trainer.train_step(batch)["loss"]) for _ in range(STEPS)]
    assert losses["t"] == pytest.approx(losses["f"], abs=1e-5)

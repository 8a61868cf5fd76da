"""The moving average of weights, by hand and lent to a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dinov3.eval.segmentation.training.ema import ExponentialMovingAverage, averaged_weights
from dinov3.eval.segmentation.training.model_state import trained_state
from dinov3.eval.segmentation.training.setup import build_model
from tests.dinov3.toy_training import toy_backbone, toy_config


def state_of(value: float, count: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([value], dtype=dtype), "count": torch.tensor(count)}


def test_average_by_hand() -> None:
    ema = ExponentialMovingAverage(state_of(1.0), decay=0.2)
    ema.update(state_of(11.0, 1))  # keeps min(0.2, 2/11) = 2/11
    torch.testing.assert_close(ema.average["weight"], torch.tensor([1 * 2 / 11 + 11 * 9 / 11]))
    first = ema.average["weight"].item()
    ema.update(state_of(0.0, 2))  # keeps min(0.2, 3/12) = 0.2
    torch.testing.assert_close(ema.average["weight"], torch.tensor([0.2 * first]))
    assert ema.average["count"] == 2


def test_the_average_is_a_copy_in_float32() -> None:
    state = state_of(1.0, dtype=torch.bfloat16)
    ema = ExponentialMovingAverage(state, decay=0.5)
    state["weight"].fill_(3)
    assert ema.average["weight"].item() == 1
    assert ema.average["weight"].dtype == torch.float32


def test_the_state_goes_on_where_it_was() -> None:
    ema, other = (ExponentialMovingAverage(state_of(value), decay=0.9) for value in (1.0, 5.0))
    ema.update(state_of(2.0))
    other.load_state_dict(ema.state_dict())
    for average in (ema, other):
        average.update(state_of(-1.0))
    assert torch.equal(ema.average["weight"], other.average["weight"])
    assert other.num_updates == 2


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"A decay of {decay} was given"):
        ExponentialMovingAverage({}, decay)


def test_a_model_borrows_the_average_and_gets_its_own_weights_back() -> None:
    model = build_model(toy_backbone(), toy_config(Path("unused"), Path("unused"), "linear"))
    ema = ExponentialMovingAverage(trained_state(model), decay=0.5)
    ema.average = {name: torch.full_like(value, 7) for name, value in ema.average.items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), averaged_weights(model, ema):
        assert all((value == 7).all() for value in trained_state(model).values())
        assert (model.backbone.norm.weight == 1).all()
        raise RuntimeError("stop")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with averaged_weights(model, None):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

"""Stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.layers.drop_path import DropPath


def test_drop_path_drops_whole_samples_and_keeps_the_mean(seeded):
    kept = DropPath(0.25)(torch.ones(4000, 2, 3))
    assert_close(kept.unique(), torch.tensor([0.0, 4 / 3]))
    assert (kept == kept[:, :1, :1]).all()
    assert_close(kept.mean(), torch.tensor(1.0), atol=0.03, rtol=0)


def test_drop_path_does_nothing_in_eval_mode():
    branch = torch.randn(3, 2)
    assert DropPath(0.9).eval()(branch) is branch


def test_drop_path_refuses_a_rate_of_one():
    with pytest.raises(ValueError, match=r"rate of 1.0 was given; give one of at least 0 and below 1"):
        DropPath(1.0)

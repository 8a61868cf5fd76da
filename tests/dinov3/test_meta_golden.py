"""Segmentation models compute what Meta's do: same names, same weights, same numbers, as recorded with a retyped copy.

`tests/recorded/make_meta_segmentation.py` holds the recipe of weights and images, and made the recording.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn
from torch.testing import assert_close

from dinov3.eval.segmentation.models import build_segmentation_decoder
from tests.dinov3.fake_backbone import FakeBackbone
from tests.recorded.make_meta_segmentation import compute

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "meta_segmentation.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-4  # of the largest element of a tensor; measured: 2e-6


@pytest.mark.parametrize("case", ["small", pytest.param("vits16", marks=pytest.mark.slow)])
def test_features_and_outputs_equal_metas(case):
    recorded, computed = RECORDED[case], compute(case)  # weights are loaded strictly
    assert computed.keys() == recorded.keys()
    for name, expected in recorded.items():
        tensor = computed[name]
        assert tensor["shape"] == expected["shape"], name
        for key in ("values", "largest", "mean", "mean_size"):
            assert_close(
                tensor[key],
                expected[key],
                rtol=0,
                atol=TOLERANCE * expected["largest"],
                msg=lambda message, name=name, key=key: f"{name}, {key}: {message}",
            )


def test_norms_have_metas_epsilons():
    """Too small a difference for the recording, but not for features that are nearly constant."""
    model = build_segmentation_decoder(FakeBackbone(), hidden_dim=32, num_classes=2)
    adapter, head = model.segmentation_model
    own = [module for name, module in adapter.named_modules() if not name.startswith("backbone")]
    assert {norm.eps for norm in own if isinstance(norm, nn.LayerNorm)} == {1e-6}
    assert {(norm.eps, norm.momentum) for norm in own if isinstance(norm, nn.BatchNorm2d)} == {(1e-5, 0.1)}
    assert {norm.eps for norm in head.modules() if isinstance(norm, nn.LayerNorm)} == {1e-5}
    groups = [norm for norm in head.modules() if isinstance(norm, nn.GroupNorm)]
    assert {(norm.eps, norm.num_groups) for norm in groups} == {(1e-5, 32)}

"""Primus with four maps: how they enter the decoder that it shares with Primus."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.head import Features
from nnunetv2.model.heads.primus_multiscale import PrimusMultiscale
from tests.model.heads.head_cases import SPECS, num_parameters, spec_of


def tiny_network(num_classes: int = 3, backbone: str = "dinov3_native", **settings: Any) -> DenseViTNetwork:
    torch.manual_seed(0)
    head = {"name": "primus_multiscale", "settings": {"embed_dim": 16, **settings}}
    return DenseViTNetwork(1, num_classes, head=head, backbone=backbone, backbone_size="tiny", tuning="full")


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"embed_dim": None}, (6_271_394, 25_076_546, 44_576_514)),
        ({"embed_dim": 768}, (29_798_210, 25_076_546, 37_662_530)),
        ({}, (4_362_178, 5_935_042, 6_983_618)),
    ],
)
def test_numbers_of_parameters(settings, counts):
    assert tuple(num_parameters(PrimusMultiscale, SPECS[size], **settings) for size in "SBL") == counts


def test_most_parameters_are_in_the_first_stage_as_the_setting_says():
    with torch.device("meta"):
        head = PrimusMultiscale(PrimusMultiscale.Config(embed_dim=None), SPECS["L"], 2)
    first = sum(parameter.numel() for parameter in head.up_projection.decode[0].parameters())
    assert round(first / 1e6, 1) == 33.6


@pytest.mark.parametrize("embed_dim", [None, 8])
def test_it_projects_the_maps_side_by_side_and_decodes_them(embed_dim, seeded):
    head = PrimusMultiscale(PrimusMultiscale.Config(embed_dim=embed_dim), spec_of(12), 3).double()
    maps = [torch.randn(2, 12, 5, 7, dtype=torch.float64) for _ in range(4)]
    stacked = torch.cat(maps, dim=1)
    if embed_dim is not None:  # a projection is the sum of what it makes of each map, and a bias
        head.proj.bias.data.normal_()
        parts = zip(maps, head.proj.weight[..., 0, 0].split(12, dim=1), strict=True)
        stacked = sum(torch.einsum("oc,bchw->bohw", weight, each) for each, weight in parts)
        stacked = stacked + head.proj.bias[:, None, None]
    logits = head(Features(image=torch.empty(2, 3, 80, 112), maps=maps, prefix_tokens=[]))
    assert logits.shape == (2, 3, 80, 112)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, head.up_projection(stacked), atol=1e-9, rtol=0)


@pytest.mark.parametrize("backbone", ["dinov3_native", "dinov2"])
@pytest.mark.parametrize("settings", [{}, {"channels": "geometric"}, {"embed_dim": None}])
def test_any_size_and_a_gradient_everywhere_from_one_image(backbone, settings):
    network = tiny_network(2, backbone, **settings)
    assert len(network.out_indices) == 4
    with torch.no_grad():
        for size in ((50, 71), (7, 5)):
            logits = network.eval()(torch.randn(1, 1, *size))
            assert logits.shape == (1, 2, *size)
            assert logits.isfinite().all()
    logits = network.train()(torch.randn(1, 1, 40, 60))
    (logits * torch.randn_like(logits)).sum().backward()
    assert [name for name, p in network.head.named_parameters() if p.grad is None] == []


def test_a_decoder_too_narrow_to_be_halved_is_refused():
    shape = BackboneShape(width=384, depth=12, patch_size=16)
    PrimusMultiscale.Config(embed_dim=8).check_backbone(shape, "dinov3 small")
    with pytest.raises(UsageError, match="model.embed_dim=7 leaves the decoder 28 channels.*give at least 8"):
        PrimusMultiscale.Config(embed_dim=7).check_backbone(shape, "dinov3 small")

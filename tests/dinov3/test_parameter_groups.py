"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

import torch
from torch import nn

from dinov3.eval.segmentation.parameter_groups import parameter_groups


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.conv = nn.Conv2d(2, 2, 3)
        self.query_feat = nn.Embedding(3, 2)
        self.level_embed = nn.Parameter(torch.zeros(3, 2))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_backbone_and_head_have_their_rates_and_only_kernels_decay():
    network = Network()
    groups = parameter_groups(network, network.backbone, lr=1.0, backbone_lr=0.1, weight_decay=0.05)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [
        (group["name"], group["lr"], group["weight_decay"], sorted(names[id(p)] for p in group["params"]))
        for group in groups
    ]
    assert found == [
        ("head", 1.0, 0.05, ["conv.weight"]),
        ("head, no decay", 1.0, 0.0, ["conv.bias", "level_embed", "query_feat.weight"]),
        ("backbone", 0.1, 0.05, ["backbone.0.weight"]),
        ("backbone, no decay", 0.1, 0.0, ["backbone.0.bias", "backbone.1.bias", "backbone.1.weight"]),
    ]


def test_a_frozen_backbone_makes_no_group():
    network = Network()
    network.backbone.requires_grad_(False)
    groups = parameter_groups(network, network.backbone, lr=1.0, backbone_lr=0.1, weight_decay=0.05)
    assert [group["name"] for group in groups] == ["head", "head, no decay"]

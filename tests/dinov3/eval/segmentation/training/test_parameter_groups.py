"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dinov3.eval.segmentation.training.parameter_groups import group_report, parameter_groups
from dinov3.layers.lora import apply_lora


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


class Transformer(nn.Module):
    """Names and shapes of a vision transformer with two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 4, 2)})
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(1, 9, 4))
        self.reg_token, self.storage_tokens = nn.Parameter(torch.zeros(1, 4, 4)), nn.Parameter(torch.zeros(1, 4, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 4))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm1": nn.LayerNorm(4), "qkv": nn.Linear(4, 12), "proj": nn.Linear(4, 4)}) for _ in "ab"
        )
        self.norm = nn.LayerNorm(4)


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Transformer()
        self.query = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 2)


def members(network: nn.Module, groups: list[dict]) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {group["name"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}


def test_tokens_queries_and_other_embeddings_have_no_decay():
    network = Segmenter()
    groups = parameter_groups(network, network.backbone, lr=1.0, backbone_lr=0.1, weight_decay=0.05)
    found = members(network, groups)
    assert found["head"] == {"head.weight"}
    assert found["head, no decay"] == {"head.bias", "query.weight"}
    blocks = {f"backbone.blocks.{i}.{layer}.weight" for i in (0, 1) for layer in ("qkv", "proj")}
    assert found["backbone"] == blocks | {"backbone.patch_embed.proj.weight"}
    tokens = ("cls_token", "pos_embed", "reg_token", "storage_tokens", "mask_token")
    assert {f"backbone.{token}" for token in tokens} <= found["backbone, no decay"]
    assert sum(map(len, found.values())) == len(list(network.parameters()))


def test_lora_has_a_rate_of_its_own_where_one_is_given():
    network = Segmenter()
    apply_lora(network.backbone, r=1)
    rates = {"lr": 1.0, "backbone_lr": 0.1, "weight_decay": 0.05}
    groups = parameter_groups(network, network.backbone, lora_lr=0.5, **rates)
    assert [(g["name"], g["lr"]) for g in groups] == [("head", 1.0), ("head, no decay", 1.0), ("lora", 0.5)]
    assert all(".lora_" in name for name in members(network, groups)["lora"])
    assert len(groups[-1]["params"]) == 2 * 2 * 2
    without = parameter_groups(network, network.backbone, **rates)
    assert [(g["name"], g["lr"]) for g in without][2:] == [("backbone", 0.1)]


def test_layer_decay_by_hand():
    network = Segmenter()
    rates = {"lr": 1.0, "backbone_lr": 0.8, "weight_decay": 0.05}
    groups = parameter_groups(network, network.backbone, layer_decay=0.5, **rates)
    rates_of = {group["name"].removesuffix(", no decay"): group["lr"] for group in groups}
    assert rates_of == {
        "head": 1.0,
        "backbone, embeddings": 0.1,
        "backbone, block 0": 0.2,
        "backbone, block 1": 0.4,
    }
    assert "backbone.norm.weight" in members(network, groups)["backbone, block 1, no decay"]
    assert [group["name"] for group in groups][:4:2] == ["head", "backbone, embeddings"]


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch14_dinov2"])
@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
def test_layer_decay_has_the_scales_and_the_decay_of_timm(name):
    import timm
    from timm.optim import param_groups_layer_decay

    vit = timm.create_model(name, embed_dim=16, depth=3, num_heads=2, num_classes=2)
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    expected = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(vit, 0.05, vit.no_weight_decay(), layer_decay=0.7)
        for parameter in group["params"]
    }
    settings = {"lr": 1.0, "backbone_lr": 1.0, "weight_decay": 0.05}
    groups = parameter_groups(vit, nn.ModuleList([vit]), layer_decay=0.7, **settings)
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    # timm does not count registers among the embeddings, and its head is part of the model.
    for special in ("reg_token", "head.weight", "head.bias"):
        expected.pop(special, None), found.pop(special, None)
    assert found.keys() == expected.keys()
    for parameter, (scale, decay) in expected.items():
        assert found[parameter] == (pytest.approx(scale), decay), parameter


def test_a_group_is_reported_in_one_line():
    group = {"name": "head", "params": [torch.zeros(2, 3), torch.zeros(4)], "lr": 1e-4, "weight_decay": 0.05}
    assert group_report(group) == "head: 10 parameters, learning rate 0.0001, decay 0.05"
    assert (
        group_report(group | {"lr": 0.0, "initial_lr": 2e-3}) == "head: 10 parameters, learning rate 0.002, decay 0.05"
    )

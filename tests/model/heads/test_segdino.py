"""SegDINO v2's head does what the public implementation's does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import BackboneSpec, Features
from nnunetv2.model.heads.segdino import GroupNorm, ResidualBlock, SegDINO
from tests.model.heads.small import loss_of, small_network


def make(embed_dim: int, num_classes: int = 2, **settings: int) -> SegDINO:
    spec = BackboneSpec(embed_dim, 12, 16, max(1, embed_dim // 64), 5, 3)
    return SegDINO(SegDINO.Config(**settings), spec, num_classes)


def features_of(maps: list[Tensor]) -> Features:
    height, width = maps[0].shape[-2:]
    return Features(torch.zeros(len(maps[0]), 3, 16 * height, 16 * width), maps, [])


def with_random_blocks(head: SegDINO) -> SegDINO:
    """Lets the residual blocks change something, which they do not at the start."""
    for module in head.modules():
        if isinstance(module, ResidualBlock):
            module.gamma.data.fill_(torch.rand(()).item() + 0.5)
            module.norm.weight.data.uniform_(0.5, 1.5)
            module.norm.bias.data.uniform_(-0.5, 0.5)
    return head


@pytest.mark.parametrize("training", [False, True])
def test_it_equals_the_public_one(training, oracle_recorded):
    file = oracle_recorded / "heads" / "segdino_v2.npz"
    if not file.is_file():
        pytest.skip(f"no recording {file.name}")
    arrays = {key: torch.from_numpy(value) for key, value in np.load(file).items()}
    head = make(32, width=32).train(training)
    prefix = "weights/"
    head.load_state_dict({key.removeprefix(prefix): v for key, v in arrays.items() if key.startswith(prefix)})
    maps = [arrays[f"in/tokens_{level}"].transpose(1, 2).unflatten(2, (4, 6)) for level in range(4)]
    torch.testing.assert_close(head(features_of(maps)), arrays["out/logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(6, 6), (5, 7)])
def test_it_equals_its_description_in_torchs_functions(grid, seeded):
    """Which also covers odd grids and a width of several channels per group."""
    head = with_random_blocks(make(24, num_classes=3, width=64)).double()
    maps = [torch.randn(2, 24, *grid, dtype=torch.double) for _ in range(4)]
    state = head.state_dict()

    def block(x: Tensor, name: str) -> Tensor:
        hidden = F.conv2d(x, state[f"{name}.depthwise.weight"], padding=1, groups=64)
        hidden = F.conv2d(hidden, state[f"{name}.pointwise.weight"])
        hidden = F.group_norm(hidden, 32, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"])
        return x + state[f"{name}.gamma"] * F.gelu(hidden)

    def enlarged(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, size=[factor * side for side in x.shape[-2:]], mode="bilinear", align_corners=False)

    x = None
    for level, factor in ((4, 1), (3, 2), (2, 4), (1, 8)):
        own = F.conv2d(maps[level - 1], state[f"token_projections.{level - 1}.weight"])
        own = F.conv2d(enlarged(own, factor), state[f"tpa_branch_{level}.conv.weight"], padding=1)
        own = block(own, f"sad_intra_{level}")
        x = block(own if x is None else enlarged(x, 2) + own, f"sad_inter_{level}")
    expected = F.conv2d(x, state["out_conv.weight"], state["out_conv.bias"])
    torch.testing.assert_close(head(features_of(maps)), expected, rtol=0, atol=1e-10)
    assert expected.shape == (2, 3, 8 * grid[0], 8 * grid[1])


@pytest.mark.parametrize(
    ("embed_dim", "at_256", "in_millions_at_128"),
    [(384, 3_299_850, 0.929), (768, 3_693_066, 1.126), (1024, 3_955_210, 1.257)],
)
def test_parameters_are_as_many_as_in_the_public_implementation(embed_dim, at_256, in_millions_at_128):
    with torch.device("meta"):
        default, narrow = make(embed_dim), make(embed_dim, width=128)
    assert sum(parameter.numel() for parameter in default.parameters()) == at_256
    assert round(sum(parameter.numel() for parameter in narrow.parameters()) / 1e6, 3) == in_millions_at_128


def test_blocks_start_as_the_identity_and_convolutions_as_pytorch_does(seeded):
    head = make(64)
    blocks = [module for module in head.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 8
    x = torch.randn(1, 256, 3, 4)
    for block in blocks:
        torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.7 < float(module.weight.detach().abs().max()) / bound < 1.0001, name


def test_everything_learns_once_the_blocks_do(seeded):
    network = small_network("segdino", 3)
    with_random_blocks(network.head)
    loss_of(network, torch.randn(1, 1, 64, 48)).backward()
    silent = [name for name, parameter in network.head.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []


def test_the_norm_is_pytorchs_but_takes_single_values(seeded):
    norm, pytorchs = GroupNorm(4, 8), nn.GroupNorm(4, 8)
    for layer in (norm, pytorchs):
        layer.weight.data = torch.linspace(-1, 2, 8)
        layer.bias.data = torch.linspace(0, 3, 8)
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(norm(x), pytorchs(x), rtol=0, atol=0)
    single = GroupNorm(8, 8)
    single.bias.data = torch.linspace(0, 3, 8)
    torch.testing.assert_close(single(torch.randn(1, 8, 1, 1)).flatten(), single.bias, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["dinov3", "dinov2"])
def test_one_image_of_one_patch_is_segmented(family, seeded):
    network = small_network("segdino", 5, backbone=family)
    assert network(torch.randn(1, 1, 7, 5)).shape == (1, 5, 7, 5)


@pytest.mark.parametrize(
    ("width", "message"), [(0, r"model\.width=0"), (48, r"model\.width=48 must be .* the next one is 64")]
)
def test_widths_that_groups_do_not_divide_are_rejected(width, message):
    with pytest.raises(UsageError, match=message):
        SegDINO.Config(width=width)

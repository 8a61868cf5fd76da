"""Adapters along the depth: what a slice sees of the others, and that nothing changes at first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.depth_fusion import (
    DepthAttention,
    DepthConvolution,
    DepthFusion,
    fold,
    unfold,
    with_neighbours,
)

WIDTH, DIM, DEPTH, VOLUMES = 6, 8, 5, 2
ADAPTERS = (DepthConvolution, DepthAttention)


def trained(adapter: nn.Module) -> nn.Module:
    """As after a training: no weight is 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return adapter.eval()


def maps_of(volumes: int = VOLUMES, depth: int = DEPTH) -> Tensor:
    return torch.randn(volumes * depth, WIDTH, 3, 2, generator=torch.Generator().manual_seed(1))


def test_folded_slices_of_a_volume_follow_each_other() -> None:
    volumes = torch.arange(2 * 3 * 4).reshape(2, 3, 4, 1, 1)  # values tell volume, channel and slice
    slices = fold(volumes)
    assert slices.shape == (8, 3, 1, 1)
    assert slices[5].flatten().tolist() == [13, 17, 21]  # the second volume's slice 1, its three channels
    assert torch.equal(unfold(slices, 4), volumes)


def test_neighbours_are_the_slices_before_and_after_and_the_ends_repeat() -> None:
    volume = torch.tensor([7.0, 2.0, 5.0]).reshape(1, 1, 3, 1, 1)
    assert with_neighbours(volume).flatten(2)[0].T.tolist() == [[7, 7, 2], [7, 2, 5], [2, 5, 5]]
    single = torch.tensor([4.0]).reshape(1, 1, 1, 1, 1)
    assert with_neighbours(single).flatten().tolist() == [4, 4, 4]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_new_adapter_changes_nothing_and_its_last_layer_learns_at_once(adapter: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = adapter(WIDTH, DIM)
    maps = maps_of()
    result = module(maps, DEPTH)
    assert torch.equal(result, maps)
    result.square().sum().backward()
    last = ("conv.", "proj.")
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.any()) == name.startswith(last), name
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.sub_(0.01 * parameter.grad)
    module.zero_grad()
    module(maps, DEPTH).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in module.parameters())


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_volumes_of_a_batch_do_not_see_each_other(adapter: type[nn.Module]) -> None:
    module, maps = trained(adapter(WIDTH, DIM)), maps_of()
    together = module(maps, DEPTH)
    apart = torch.cat([module(maps[:DEPTH], DEPTH), module(maps[DEPTH:], DEPTH)])
    torch.testing.assert_close(together, apart)
    assert not torch.allclose(together, module(maps, VOLUMES * DEPTH))  # as one long volume


@pytest.mark.parametrize("layers", [1, 2])
def test_a_convolution_reaches_one_slice_per_layer(layers: int) -> None:
    fusion = trained(DepthFusion("conv", [WIDTH], DIM, layers))
    maps = maps_of(1, 7)
    changed = maps.clone()
    changed[3] *= -1  # a constant would be lost in the norm
    (before,), (after,) = fusion([maps], 7), fusion([changed], 7)
    differing = [z for z in range(7) if not torch.allclose(before[z], after[z])]
    assert differing == list(range(3 - layers, 3 + layers + 1))


def test_attention_reaches_every_slice() -> None:
    module, maps = trained(DepthAttention(WIDTH, DIM)), maps_of(1, 40)
    changed = maps.clone()
    changed[0] *= -1
    before, after = module(maps, 40), module(changed, 40)
    assert all(not torch.equal(before[z], after[z]) for z in range(40))


def test_attention_prefers_the_nearest_slices_at_first() -> None:
    """By hand: each head gives 55 times the share to one slice, here to the one after, before, and two further."""
    module = DepthAttention(WIDTH, DIM)
    shares = (
        module.relative_bias[:, 15 - 4 : 15 + 5].softmax(dim=1).detach()
    )  # of a slice with four neighbours to each side
    assert shares.argmax(dim=1).tolist() == [4 + 1, 4 - 1, 4 + 2, 4 - 2]
    assert shares.max(dim=1).values == pytest.approx([54.598 / (54.598 + 8)] * 4, abs=1e-3)


def test_attention_knows_distances_and_nothing_else_of_the_order() -> None:
    module, maps = trained(DepthAttention(WIDTH, DIM)), maps_of(1)
    order = torch.tensor([2, 0, 4, 1, 3])
    assert not torch.allclose(module(maps[order], DEPTH), module(maps, DEPTH)[order], atol=1e-3)
    nn.init.zeros_(module.relative_bias)
    torch.testing.assert_close(module(maps[order], DEPTH), module(maps, DEPTH)[order])


def test_a_shifted_volume_has_shifted_results_away_from_its_ends() -> None:
    fusion = trained(DepthFusion("conv", [WIDTH], DIM, 2))
    maps = maps_of(1, 9)
    (plain,), (shifted,) = fusion([maps[:-1]], 8), fusion([maps[1:]], 8)
    torch.testing.assert_close(plain[3:6], shifted[2:5])


def test_a_flipped_volume_with_flipped_kernels_has_a_flipped_result() -> None:
    module, maps = trained(DepthConvolution(WIDTH, DIM)), maps_of(1)
    expected = module(maps, DEPTH).flip(0)
    with torch.no_grad():
        module.conv.weight.copy_(module.conv.weight.flip(-1))
    torch.testing.assert_close(module(maps.flip(0), DEPTH), expected)


def test_of_a_single_slice_a_convolution_is_its_centre_tap() -> None:
    module, maps = trained(DepthConvolution(WIDTH, DIM)), maps_of(1, 1)
    hidden = module.down(module.norm(maps.permute(0, 2, 3, 1)))
    centre = hidden @ module.conv.weight[..., 1].T + module.conv.bias
    torch.testing.assert_close(module(maps, 1), maps + centre.permute(0, 3, 1, 2))
    assert torch.isfinite(trained(DepthAttention(WIDTH, DIM))(maps, 1)).all()


def test_attention_equals_the_formula() -> None:
    """Scores q k / sqrt(d) plus the bias of the distance, for one place of one volume."""
    module, maps = trained(DepthAttention(WIDTH, DIM)), maps_of(1)
    column = module.norm(maps[:, :, 1, 0])
    query, key, value = module.qkv(column).reshape(DEPTH, 3, 4, DIM // 4).permute(1, 2, 0, 3)
    scores = query @ key.transpose(1, 2) / (DIM // 4) ** 0.5
    for z in range(DEPTH):
        for other in range(DEPTH):
            scores[:, z, other] += module.relative_bias[:, 15 + other - z]
    found = (scores.softmax(-1) @ value).transpose(0, 1).reshape(DEPTH, DIM)
    expected = maps[:, :, 1, 0] + module.proj(found)
    torch.testing.assert_close(module(maps, DEPTH)[:, :, 1, 0], expected)


def test_unfit_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model.fusion='lstm' is not known; choose one of none, conv, attention"):
        DepthFusion("lstm", [WIDTH], DIM, 1)
    with pytest.raises(UsageError, match=r"model.fusion_dim=6 must be a multiple of 4 with model.fusion=attention"):
        DepthFusion("attention", [WIDTH], 6, 1)

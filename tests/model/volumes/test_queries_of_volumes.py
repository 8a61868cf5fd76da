"""Heads with queries on volumes: one set of queries for all slices, whose masks are volumes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import head_config_class
from nnunetv2.model.head_output import require_queries
from nnunetv2.model.mask_transformer_parts import hidden_patches
from nnunetv2.model.query_network import dense_logits
from nnunetv2.model.volume_queries import mask_logits, masks_of_slices, of_volumes, shared_queries
from tests.model.heads.small import HEADS, small_network

QUERY_HEADS = [head for head in HEADS if head_config_class(head).kind == "queries"]
SIZE = (64, 56)


def pair(head: str, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """A network for images and one for volumes with the same weights, and new adapters between the slices."""
    torch.manual_seed(0)
    flat = small_network(head, **settings).eval()
    volumetric = small_network(head, num_axes=3, slice_input="single", **settings).eval()
    missing = volumetric.load_state_dict(flat.state_dict(), strict=False).missing_keys
    assert all(name.startswith("fusion.") for name in missing)
    return flat, volumetric


def images(number: int = 2) -> Tensor:
    return torch.randn(number, 1, *SIZE, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
@pytest.mark.parametrize("head", QUERY_HEADS)
@pytest.mark.parametrize("depth", [1, 3])
def test_a_volume_of_equal_slices_has_the_queries_of_the_image(head: str, tuning: str, depth: int) -> None:
    flat, volumetric = pair(head, tuning=tuning)
    volumes = images()[:, :, None].expand(-1, -1, depth, -1, -1)
    expected, found = flat(images(), return_queries=True), volumetric(volumes, return_queries=True)
    layers = zip([expected, *expected["aux_outputs"]], [found, *found["aux_outputs"]], strict=True)
    for of_image, of_volume in layers:
        torch.testing.assert_close(of_volume["pred_logits"], of_image["pred_logits"], rtol=0, atol=1e-5)
        assert of_volume["pred_masks"].shape[2] == depth
        for of_slice in of_volume["pred_masks"].unbind(2):
            torch.testing.assert_close(of_slice, of_image["pred_masks"], rtol=0, atol=1e-5)
    dense = volumetric(volumes)
    for of_slice in dense.unbind(2):
        torch.testing.assert_close(of_slice, flat(images()), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("head", QUERY_HEADS)
def test_volumes_of_a_batch_do_not_see_each_other_and_slices_of_one_do(head: str) -> None:
    torch.manual_seed(0)
    network = small_network(head, num_axes=3, slice_input="single", fusion="none", tuning="frozen").eval()
    volumes = torch.randn(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    result = network(volumes, return_queries=True)
    for number, volume in enumerate(volumes):
        alone = network(volume[None], return_queries=True)
        for name in ("pred_logits", "pred_masks"):
            torch.testing.assert_close(result[name][number], alone[name][0], rtol=1e-4, atol=1e-5)
    changed = volumes.clone()
    changed[0, :, 0] *= -1
    after = network(changed, return_queries=True)["pred_masks"]
    assert not torch.allclose(after[0, :, 2], result["pred_masks"][0, :, 2], atol=1e-5)  # by the queries
    torch.testing.assert_close(after[1], result["pred_masks"][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", QUERY_HEADS)
def test_every_parameter_learns_from_volumes_once_the_adapters_do(head: str) -> None:
    torch.manual_seed(0)
    network = small_network(head, num_axes=3, tuning="full").train()
    for name, parameter in network.fusion.named_parameters():
        if "conv" in name:
            nn.init.normal_(parameter, std=0.1)
    output = network(torch.randn(2, 1, 3, *SIZE), return_queries=True)
    layers = [output, *output["aux_outputs"]]
    sum(layer[name].square().mean() for layer in layers for name in ("pred_logits", "pred_masks")).backward()
    assert not [name for name, parameter in network.fusion.named_parameters() if parameter.grad is None]
    assert all(bool(parameter.grad.any()) for parameter in network.fusion.parameters())


def test_slices_share_the_mean_of_their_queries() -> None:
    queries = torch.tensor([1.0, 3.0, 10.0, 20.0]).reshape(4, 1, 1)  # two volumes of two slices
    shared = shared_queries(queries, 2)
    assert shared.flatten().tolist() == [2, 2, 15, 15]
    assert of_volumes(shared, 2).flatten().tolist() == [2, 15]
    assert of_volumes(queries, None) is queries


def test_masks_of_volumes_multiply_each_slice_with_the_same_queries() -> None:
    queries, pixels = torch.randn(2, 5, 4), torch.randn(6, 4, 3, 2)
    masks = mask_logits(queries, pixels, 3)
    assert masks.shape == (2, 5, 3, 3, 2)
    for volume in range(2):
        for z in range(3):
            expected = mask_logits(queries[volume, None], pixels[3 * volume + z, None], None)[0]
            torch.testing.assert_close(masks[volume, :, z], expected)
    assert torch.equal(masks_of_slices(masks)[4], masks[1, :, 1])


def test_a_query_is_restricted_in_all_slices_of_a_volume_or_in_none() -> None:
    torch.manual_seed(0)
    masks = torch.full((6, 40, 2, 2), -1.0)  # covers nothing: every patch of a restricted query is hidden
    hidden = hidden_patches(masks, [2, 2], torch.tensor(0.5), depth=3).all(dim=2).view(2, 3, 40)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    assert 10 < hidden[:, 0].sum() < 70
    assert not torch.equal(hidden[0, 0], hidden[1, 0])


def test_dense_logits_of_a_volume_are_those_of_its_slices() -> None:
    queries = {"pred_logits": torch.randn(2, 5, 4), "pred_masks": torch.randn(2, 5, 3, 8, 7)}
    found = dense_logits(queries, (30, 25), 4, regions=False)
    assert found.shape == (2, 3, 3, 30, 25)
    for z in range(3):
        of_slice = {**queries, "pred_masks": queries["pred_masks"][:, :, z]}
        assert torch.equal(found[:, :, z], dense_logits(of_slice, (30, 25), 4, regions=False))


@torch.no_grad()
def test_a_detail_branch_draws_in_every_slice() -> None:
    flat, volumetric = pair("eomt", tuning="frozen", detail_branch=True)
    for network in (flat, volumetric):
        nn.init.constant_(network.detail.last.weight, 0.02)
    volumes = images()[:, :, None].expand(-1, -1, 2, -1, -1)
    for of_slice in volumetric(volumes).unbind(2):
        torch.testing.assert_close(of_slice, flat(images()), rtol=0, atol=1e-5)


def test_a_head_that_returns_masks_of_images_for_volumes_is_named() -> None:
    head = small_network("eomt").head
    output = {"pred_logits": torch.zeros(2, 5, 3), "pred_masks": torch.zeros(2, 5, 8, 8), "aux_outputs": []}
    require_queries(output, head, 2)
    with pytest.raises(UsageError, match=r"must return .* pred_masks \(batch, queries, depth, height, width\)"):
        require_queries(output, head, 2, is_volume=True)

"""The setting `detail_branch`: no head changes at first, all of it is trained, and it sees single pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetv2.model.cost.network_parts import network_parts
from nnunetv2.model.detail_branch import DetailBranch
from nnunetv2.model.head_config import head_config_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.utilities import extensions
from tests.model.heads.small import HEADS, loss_of, small_architecture, small_network, small_words
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

QUERY_HEADS = [head for head in HEADS if head_config_class(head).kind == "queries"]


def pair(head: str, **settings: object) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The network without and with the branch, of equal weights."""
    plain = small_network(head, 3, **settings).eval()
    detailed = small_network(head, 3, detail_branch=True, **settings).eval()
    missing, unexpected = detailed.load_state_dict(plain.state_dict(), strict=False)
    assert missing
    assert all(name.startswith("detail.") for name in missing)
    assert not unexpected
    return plain, detailed


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_a_new_branch_changes_no_bit(head, regions, seeded):
    plain, detailed = pair(head, regions=regions)
    image = torch.randn(2, 1, 45, 39)
    with torch.no_grad():
        assert torch.equal(detailed(image), plain(image))


@pytest.mark.parametrize("head", ["segformer", "eomt"])
def test_a_new_branch_changes_no_bit_of_enlarged_images(head, seeded):
    plain, detailed = pair(head, input_scale=3, backbone="dinov2")
    image = torch.randn(2, 1, 25, 39)
    with torch.no_grad():
        assert torch.equal(detailed(image), plain(image))


@pytest.mark.parametrize("head", HEADS)
def test_a_frozen_backbone_leaves_the_branch_trained(head, seeded):
    network = small_network(head, 3, detail_branch=True, tuning="frozen")
    torch.nn.init.normal_(network.detail.last.weight)
    loss_of(network, torch.randn(2, 1, 64, 48)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.detail.parameters())


@pytest.mark.parametrize("head", QUERY_HEADS)
def test_heads_with_queries_are_trained_with_their_loss(head, nnunet_folders):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = make_trainer(nnUNetTrainer_vit, overrides=[*small_words(head), "model.detail_branch=true"])
    trainer.initialize()
    trainer.network.train()
    batch = next(trainer.get_dataloaders()[0])
    assert np.isfinite(trainer.train_step(batch)["loss"])
    assert trainer.network.detail.last.weight.grad.abs().sum() > 0


def share_of_bends(logits: torch.Tensor) -> float:
    """Share of the pixels in whose row the logits are not linear; one half at most if enlarged four times."""
    return float((logits.diff(n=2, dim=-1).abs() > 1e-4).float().mean())


def test_a_trained_branch_draws_every_pixel(seeded):
    plain, detailed = pair("segformer")
    torch.nn.init.normal_(detailed.detail.last.weight)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert share_of_bends(plain(image)) < 0.6
        assert share_of_bends(detailed(image)) > 0.95


def test_masks_of_queries_get_the_details_of_their_classes(seeded):
    plain, detailed = pair("m2f")
    torch.nn.init.normal_(detailed.detail.last.weight)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        coarse, fine = plain(image, return_queries=True), detailed(image, return_queries=True)
    assert torch.equal(fine["pred_logits"], coarse["pred_logits"])
    assert coarse["pred_masks"].shape[-2:] == (16, 16)
    enlarged = torch.nn.functional.interpolate(coarse["pred_masks"], size=(64, 64), mode="bilinear")
    classes = fine["pred_logits"].softmax(-1)[..., :-1]  # (1, Q, K)
    # Each mask is moved by one combination of K maps, so the differences have at most the rank K.
    moved = (fine["pred_masks"] - enlarged)[0].flatten(1)
    assert torch.linalg.matrix_rank(moved, rtol=1e-4) == classes.shape[-1]


def test_it_is_small_and_its_classifier_is_known():
    branch = DetailBranch(3, 4)
    assert 0.1e6 < sum(parameter.numel() for parameter in branch.parameters()) < 0.3e6
    network = small_network("segformer", 3, detail_branch=True)
    other = small_network("segformer", 5, detail_branch=True)
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    differing = {name for name, value in network.state_dict().items() if value.shape != shapes[name]}
    assert {name for name in differing if name.startswith("detail.")}
    assert all(network.is_classifier(name) for name in differing)


def test_its_cost_is_reported():
    assert network_parts(small_network("segformer", 3, detail_branch=True))["detail branch"] == "detail"
    assert "detail branch" not in network_parts(small_network("segformer", 3))


@pytest.mark.parametrize("head", ["segformer", "linear"])
def test_plans_name_it_only_where_it_is(head):
    assert "detail_branch" not in small_architecture(head)["arch_kwargs"]
    assert small_architecture(head, detail_branch=True)["arch_kwargs"]["detail_branch"] is True


def test_no_head_has_a_module_of_its_name():
    """Heads older than the submodule `head` have their tensors at the top level of the state dict."""
    for head in HEADS:
        if extensions.find("head", head).config().network_class is not None:
            assert "detail" not in dict(small_network(head).head.named_children())

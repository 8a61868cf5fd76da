"""timm's attention with joint rotation equals timm's own: outputs, gradients, parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models.eva import EvaAttention, EvaBlock
from torch import Tensor, nn

from dinov3.layers.rope_position_encoding import Rotation, make_rotation, rotate, rotate_packed
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.joint_rotation import JointlyRotatedAttention, rotating_jointly, rotation_of
from nnunetv2.model.residual_block import ResidualBlock


def as_timm_made_it(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    made.__dict__.update(module.__dict__)
    return made


def pair(tuning: str = "full") -> tuple[Backbone, Backbone]:
    """A backbone as it is built here, and the same with timm's own blocks and attention."""
    torch.manual_seed(0)
    ours = create_backbone("dinov3", "tiny")
    for block in ours.vit.blocks:
        for scale in (block.gamma_1, block.gamma_2):
            nn.init.normal_(scale).requires_grad_(tuning == "full")
    theirs = copy.deepcopy(ours)
    for index, block in enumerate(theirs.vit.blocks):
        assert (type(block), type(block.attn)) == (ResidualBlock, JointlyRotatedAttention)
        block.attn = as_timm_made_it(block.attn, EvaAttention)
        theirs.vit.blocks[index] = as_timm_made_it(block, EvaBlock)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    return ours, theirs


def passes(backbone: Backbone, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        maps = backbone.features(image, [1, 3]).maps
    sum(one.float().square().sum() for one in maps).backward()
    gradients = [parameter.grad.flatten() for parameter in backbone.parameters() if parameter.grad is not None]
    return torch.cat([one.float().flatten() for one in maps]), torch.cat(gradients)


@pytest.mark.parametrize(
    ("tuning", "dtype", "tolerance"),
    [
        ("full", torch.float32, 0),
        ("full", torch.bfloat16, 1e-5),
        ("lora", torch.float32, 1e-6),
        ("lora", torch.bfloat16, 1e-2),  # sums of gradients round at other places
    ],
)
def test_backbones_compute_what_timm_does(tuning: str, dtype: torch.dtype, tolerance: float) -> None:
    results = [passes(backbone, dtype) for backbone in pair(tuning)]
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= tolerance * expected.norm()


def test_masked_attention_of_further_tokens_is_timms() -> None:
    """EoMT appends queries without a position, and hides patches from them."""
    ours, theirs = pair()
    tokens, rotation = ours.embed(torch.randn(1, 3, 32, 48))
    tokens = torch.cat((tokens, torch.randn(1, 3, tokens.shape[-1])), dim=1)
    sine, cosine = torch.zeros(3, rotation.shape[-1] // 2), torch.ones(3, rotation.shape[-1] // 2)
    rotation = torch.cat((rotation, torch.cat((sine, cosine), dim=1)))
    mask = torch.zeros(1, 1, tokens.shape[1], tokens.shape[1])
    mask[..., -3:, 5:8] = -torch.inf
    assert torch.equal(ours.run_block(0, tokens, rotation, mask), theirs.run_block(0, tokens, rotation, mask))


def test_half_precision_is_rotated_in_float32_with_the_gradient_of_autograd() -> None:
    torch.manual_seed(0)
    angles = torch.randn(7, 4).tile(2)
    rotation = make_rotation(angles.sin(), angles.cos(), 2)
    vectors = torch.randn(2, 9, 2, 3, 8, dtype=torch.bfloat16, requires_grad=True)
    weights = torch.randn(2, 9, 2, 3, 8).bfloat16()
    exact = vectors.detach().double().requires_grad_()
    expected = rotate(exact, Rotation(*(each.double() for each in rotation)))
    expected.backward(weights.double())
    found = rotate(vectors, rotation)
    found.backward(weights)
    assert found.dtype == vectors.grad.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    assert torch.equal(vectors.grad, exact.grad.bfloat16())


def test_packed_queries_keys_and_values_are_rotated_alike_with_one_gradient() -> None:
    torch.manual_seed(0)
    angles = torch.randn(7, 4).tile(2)
    rotation = make_rotation(angles.sin(), angles.cos(), 2)
    packed = torch.randn(2, 9, 3, 3, 8, dtype=torch.bfloat16, requires_grad=True)
    query, key, value = rotate_packed(packed, rotation)
    pair = rotate(packed[:, :, :2], rotation)
    assert torch.equal(torch.stack((query, key), dim=2), pair)
    assert torch.equal(value, packed[:, :, 2])
    factors = torch.randn(3, 2, 9, 3, 8).bfloat16()
    (found,) = torch.autograd.grad((query, key, value), packed, factors.unbind())
    (expected,) = torch.autograd.grad((*pair.unbind(2), packed[:, :, 2]), packed, factors.unbind())
    assert torch.equal(found, expected)


def test_a_rotation_is_made_once_for_the_sines_that_a_backbone_remembers() -> None:
    backbone = create_backbone("dinov3", "tiny")
    rope = backbone.rotation(3, 4)
    assert rotation_of(rope, 5).cosine is rotation_of(backbone.rotation(3, 4), 5).cosine
    assert rotation_of(rope, 4).cosine.shape[0] == 16
    with torch.inference_mode():
        made = rotation_of(backbone.rotation(5, 4), 5)
    assert not made.cosine.is_inference()


def test_attention_of_other_kinds_is_left_alone() -> None:
    for settings in ({"rotate_half": False}, {"rotate_half": True, "qkv_fused": False}):
        attention = EvaAttention(16, num_heads=2, scale_norm=False, **settings)
        assert rotating_jointly(attention) is attention
    attention = EvaAttention(16, num_heads=2, scale_norm=False, rotate_half=True)
    attention.q_norm = nn.LayerNorm(8)
    assert rotating_jointly(attention) is attention

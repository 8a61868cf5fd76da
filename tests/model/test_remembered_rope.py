"""timm's rotary positions with a memory: the same numbers, made once."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from timm.layers import pos_embed_sincos
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3

from nnunetv2.model import remembered_rope
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.remembered_rope import RememberedRope, remembering


@pytest.fixture
def rope() -> RememberedRope:
    return remembering(RotaryEmbeddingDinoV3(32))


@pytest.mark.parametrize("options", [{}, {"normalize_coords": "max"}, {"grid_indexing": "xy"}, {"rotate_half": False}])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (7, 4)])
def test_numbers_are_those_of_timm(options: dict, size: tuple[int, int]) -> None:
    theirs = RotaryEmbeddingDinoV3(32, **options)
    expected = theirs.get_embed(size)
    ours = remembering(theirs)
    for _ in range(2):
        assert torch.equal(ours.get_embed(size), expected)


def test_each_size_is_made_once(rope: RememberedRope) -> None:
    make = mock.Mock(wraps=pos_embed_sincos.make_coords_dinov3)
    with mock.patch.object(remembered_rope, "make_coords_dinov3", make):
        for size in [(2, 3), (3, 2), (2, 3), (3, 2)]:
            rope.get_embed(size)
    assert [call.args for call in make.call_args_list] == [(2, 3), (3, 2)]


def test_a_cast_and_a_copy_forget(rope: RememberedRope) -> None:
    single = rope.get_embed((2, 3))
    assert copy.deepcopy(rope)._remembered == {}
    assert rope.double().get_embed((2, 3)).dtype == torch.float64
    assert torch.equal(rope.float().get_embed((2, 3)), single)


def test_what_prediction_remembers_can_be_trained_with(rope: RememberedRope) -> None:
    with torch.inference_mode():
        rope.get_embed((2, 2))
    weights = torch.ones(4, 64, requires_grad=True)
    (weights * rope.get_embed((2, 2))).sum().backward()
    assert torch.equal(weights.grad, rope.get_embed((2, 2)))


def test_augmented_positions_are_drawn_anew() -> None:
    rope = remembering(RotaryEmbeddingDinoV3(32, shift_coords=0.1))
    assert not torch.equal(rope.get_embed((2, 2)), rope.get_embed((2, 2)))
    rope.eval()
    assert torch.equal(rope.get_embed((2, 2)), rope.get_embed((2, 2)))


def test_backbones_have_the_memory_and_no_further_tensors() -> None:
    backbone = create_backbone("dinov3", "tiny")
    assert isinstance(backbone.vit.rope, RememberedRope)
    assert {name for name, _ in backbone.vit.rope.named_buffers()} == {"periods"}
    assert not any("rope" in name for name in backbone.state_dict())


def test_compiled_backbones_give_the_same_numbers() -> None:
    rope = remembering(RotaryEmbeddingDinoV3(32))
    compiled = torch.compile(lambda tokens: tokens + rope.get_embed((2, 3)), backend="eager", fullgraph=True)
    tokens = torch.ones(6, 64)
    assert torch.equal(compiled(tokens), tokens + rope.get_embed((2, 3)))

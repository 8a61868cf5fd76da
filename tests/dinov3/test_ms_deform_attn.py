"""Deformable attention: against a loop, against transformers, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.models.utils.fused_deformable_attention import fused_deformable_attention
from dinov3.eval.segmentation.models.utils.ms_deform_attn import MSDeformAttn, cell_centres, deformable_attention

SIZES = ((4, 6), (2, 3))


def random_inputs(dtype=torch.float64, batch=2, heads=3, width=2, queries=5, points=2):
    value = torch.randn(batch, sum(h * w for h, w in SIZES), heads, width, dtype=dtype)
    locations = torch.rand(batch, queries, heads, len(SIZES), points, 2, dtype=dtype) * 1.4 - 0.2  # some outside
    weights = torch.rand(batch, queries, heads, len(SIZES), points, dtype=dtype)
    return value, locations, weights


def bilinear_by_hand(level, x, y):
    """Value of a (h, w, d) map at (x, y) in units of the map; pixels outside are zero."""
    height, width, _ = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    result = torch.zeros(level.shape[-1], dtype=level.dtype)
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < height and 0 <= c < width:
                result += (1 - abs(row - r)) * (1 - abs(column - c)) * level[r, c]
    return result


def test_core_equals_a_loop_over_every_sample(seeded):
    value, locations, weights = random_inputs()
    batch, queries, heads, _, points, _ = locations.shape
    expected = torch.zeros(batch, queries, heads, value.shape[-1], dtype=value.dtype)
    starts = (0, SIZES[0][0] * SIZES[0][1])
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                for level, (size, start) in enumerate(zip(SIZES, starts, strict=True)):
                    cells = value[b, start : start + size[0] * size[1], m].view(*size, -1)
                    for p in range(points):
                        x, y = locations[b, q, m, level, p].tolist()
                        expected[b, q, m] += weights[b, q, m, level, p] * bilinear_by_hand(cells, x, y)
    assert_close(deformable_attention(value, SIZES, locations, weights), expected.flatten(2))


def test_core_equals_transformers(seeded):
    from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

    value, locations, weights = random_inputs(torch.float32)
    ours = deformable_attention(value, SIZES, locations, weights)
    assert_close(ours, multi_scale_deformable_attention(value, list(SIZES), locations, weights))


def test_core_gradients_equal_those_of_transformers(seeded):
    from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

    inputs = [tensor.requires_grad_() for tensor in random_inputs()]
    outputs = (
        deformable_attention(inputs[0], SIZES, *inputs[1:]),
        multi_scale_deformable_attention(inputs[0], list(SIZES), *inputs[1:]),
    )
    factors = torch.randn_like(outputs[0])
    ours, theirs = (torch.autograd.grad((output * factors).sum(), inputs) for output in outputs)
    assert_close(ours, theirs)


@pytest.mark.parametrize("batch", [1, 2])
def test_core_gradients_are_right_on_cpu(seeded, batch):
    inputs = [tensor.requires_grad_() for tensor in random_inputs(batch=batch, heads=2, width=2, queries=3, points=2)]
    assert torch.autograd.gradcheck(lambda v, loc, w: deformable_attention(v, SIZES, loc, w), inputs)


def test_module_gradients_are_right_on_cpu(seeded):
    attention = MSDeformAttn(d_model=8, n_levels=2, n_heads=2, n_points=2).double()
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(attention.attention_weights.weight)
    query, tokens = (torch.randn(2, n, 8, dtype=torch.float64, requires_grad=True) for n in (3, 30))
    reference = torch.rand(1, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, r, t: attention(q, r, t, SIZES), (query, reference, tokens))


def fused_inputs(dtype, batch=2, heads=3, sizes=SIZES):
    value, *_ = random_inputs(dtype, batch, heads)
    value = value[:, : sum(height * width for height, width in sizes)]
    reference = torch.rand(1, 5, 1, 2, dtype=torch.promote_types(dtype, torch.float32))
    offsets = torch.randn(batch, 5, heads, len(sizes), 2, 2).to(dtype)  # some samples lie outside
    logits = torch.randn(batch, 5, heads, len(sizes) * 2).to(dtype)
    return [tensor.requires_grad_() for tensor in (value, offsets, logits)], reference


def step_by_step(value, sizes, reference, offsets, logits):
    """As `MSDeformAttn` computes it where it is compiled."""
    cells = torch.tensor([(width, height) for height, width in sizes])[:, None]
    locations = reference[:, :, None, :, None] + offsets / cells
    weights = logits.softmax(dim=-1).unflatten(-1, offsets.shape[3:5])
    return deformable_attention(value, sizes, locations, weights)


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fused_equals_step_by_step_with_all_gradients(seeded, dtype, sizes):
    inputs, reference = fused_inputs(dtype, sizes=sizes)
    ours = fused_deformable_attention(inputs[0], sizes, reference, *inputs[1:])
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = step_by_step(exact[0], sizes, reference.double(), *exact[1:])
    factors = torch.randn(ours.shape).to(dtype)
    assert ours.dtype == dtype
    found = [ours, *torch.autograd.grad(ours, inputs, factors)]
    right = [expected, *torch.autograd.grad(expected, exact, factors.double())]
    rounding = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-8}[dtype]
    for one, other, given in zip(found, right, [ours, *inputs], strict=True):
        assert one.dtype == given.dtype
        assert (one - other).norm() <= rounding * other.norm()


def test_fused_needs_no_gradient_of_values_or_offsets(seeded):
    (value, offsets, logits), reference = fused_inputs(torch.float64)
    assert torch.autograd.gradcheck(
        lambda logits: fused_deformable_attention(value.detach(), SIZES, reference, offsets.detach(), logits), logits
    )


def test_core_samples_half_precision_values_in_float32(seeded):
    value, locations, weights = random_inputs(torch.float32)
    half = deformable_attention(value.bfloat16(), SIZES, locations, weights)
    assert half.dtype == torch.bfloat16
    exact = deformable_attention(value.bfloat16().float(), SIZES, locations, weights)
    assert_close(half.float(), exact, rtol=2**-8, atol=1e-6)  # one rounding of the result, nothing else


def test_module_equals_transformers_with_the_same_weights(seeded):
    from transformers.models.mask2former.modeling_mask2former import (
        Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as Theirs,
    )

    ours = MSDeformAttn(d_model=16, n_levels=2, n_heads=4, n_points=3)
    torch.nn.init.normal_(ours.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(ours.attention_weights.weight)
    theirs = Theirs(embed_dim=16, num_heads=4, n_levels=2, n_points=3)
    theirs.load_state_dict(ours.state_dict())
    query, tokens, reference = torch.randn(2, 5, 16), torch.randn(2, 30, 16), torch.rand(2, 5, 2, 2)
    expected, _ = theirs(
        query, encoder_hidden_states=tokens, reference_points=reference, spatial_shapes_list=list(SIZES)
    )
    assert_close(ours(query, reference, tokens, SIZES), expected)


@pytest.mark.parametrize(
    ("heads", "directions"),
    [
        (4, [(1, 0), (0, 1), (-1, 0), (0, -1)]),
        (8, [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]),
    ],
)
def test_fresh_module_looks_in_all_directions_with_equal_weights(heads, directions):
    attention = MSDeformAttn(d_model=16, n_levels=2, n_heads=heads, n_points=3)
    bias = attention.sampling_offsets.bias.detach().view(heads, 2, 3, 2)
    expected = torch.tensor(directions, dtype=torch.float32)[:, None, None] * torch.arange(1, 4)[:, None]
    assert_close(bias, expected.expand(-1, 2, -1, -1), atol=1e-5, rtol=0)
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()
    assert not attention.attention_weights.bias.any()


def test_ratio_halves_the_values_only():
    attention = MSDeformAttn(d_model=16, n_levels=1, n_heads=4, n_points=2, ratio=0.5)
    assert attention.value_proj.weight.shape == (8, 16)
    assert attention.output_proj.weight.shape == (16, 8)
    assert attention.sampling_offsets.weight.shape == (16, 16)


def test_module_refuses_heads_that_do_not_divide_the_values():
    with pytest.raises(ValueError, match=r"24 \* 0.5 = 12 channels cannot be divided among 16 heads"):
        MSDeformAttn(d_model=24, n_levels=1, n_heads=16, ratio=0.5)


def test_module_refuses_sizes_that_do_not_fit_the_tokens():
    attention = MSDeformAttn(d_model=8, n_levels=2, n_heads=2)
    with pytest.raises(ValueError, match=r"31 tokens with levels of sizes \(\(4, 6\), \(2, 3\)\)"):
        attention(torch.zeros(1, 1, 8), torch.zeros(1, 1, 1, 2), torch.zeros(1, 31, 8), SIZES)


def test_cell_centres_are_listed_row_by_row_x_first():
    centres = cell_centres(((2, 2), (1, 2)), torch.device("cpu"))
    expected = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75), (0.25, 0.5), (0.75, 0.5)]
    assert_close(centres, torch.tensor(expected))


def test_what_inference_mode_remembered_can_be_trained_with(seeded):
    attention = MSDeformAttn(d_model=8, n_levels=1, n_heads=2)
    size, device = ((3, 7),), torch.device("cpu")  # a size no other test asks for
    arguments = torch.randn(1, 21, 8), torch.randn(1, 21, 8), size
    with torch.inference_mode():
        attention(arguments[0], cell_centres(size, device)[None, :, None], *arguments[1:])
    attention(arguments[0], cell_centres(size, device)[None, :, None], *arguments[1:]).sum().backward()
    assert attention.sampling_offsets.weight.grad is not None

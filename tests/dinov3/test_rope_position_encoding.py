"""Rotary positions: by hand, against timm and against complex numbers; what is remembered and for how long."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from dinov3.layers.rope_position_encoding import REMEMBERED_SIZES, RopePositionEmbedding, rotate

PERIODS_OF_64_CHANNELS = [
    *(1, 1.33352, 1.77828, 2.37137, 3.16228, 4.21697, 5.62341, 7.49894),
    *(10, 13.33521, 17.78279, 23.71374, 31.62278, 42.16965, 56.23413, 74.98942),
]


def make_rope(**options):
    return RopePositionEmbedding(128, num_heads=2, **options)


def coordinates(rope, height, width):
    """(row, column) that the angles stand for; `rope` has one period, long enough for angles not to wrap."""
    sine, cosine = rope(H=height, W=width)
    return torch.atan2(sine, cosine)[:, :2] * rope.periods / (2 * math.pi)


def one_period_rope(**options):
    return RopePositionEmbedding(8, num_heads=2, base=None, min_period=16.0, max_period=16.0, **options)


def test_periods_are_those_of_the_released_models():
    assert_close(make_rope().periods, torch.tensor(PERIODS_OF_64_CHANNELS), atol=1e-5, rtol=0)


def test_periods_run_from_the_smallest_to_the_largest_given():
    periods = make_rope(base=None, min_period=0.5, max_period=40.0).periods
    assert_close(periods[[0, -1]], torch.tensor([0.5, 40.0]))
    assert_close(periods[1:] / periods[:-1], torch.full((15,), 80.0 ** (1 / 15)))


def test_first_patch_of_a_2_by_3_grid():
    sine, cosine = make_rope()(H=2, W=3)
    assert sine.shape == cosine.shape == (6, 64) and sine.dtype == cosine.dtype == torch.float32
    row_angles = torch.atan2(sine, cosine)[0, :4]
    assert_close(row_angles.abs()[0], torch.tensor(math.pi))  # the wrap at pi may fall on either side
    assert_close(row_angles[1:], torch.tensor([-2.35586, -1.76665, -1.32480]), atol=1e-5, rtol=0)


def test_channels_are_rows_then_columns_then_both_again():
    table = torch.stack(make_rope()(H=2, W=3)).unflatten(1, (2, 3)).unflatten(-1, (2, 2, 16))
    assert_close(table[..., 0, :, :], table[..., 1, :, :])
    rows, columns = table[..., 0, 0, :], table[..., 0, 1, :]
    assert_close(rows, rows[:, :, :1].expand_as(rows))
    assert_close(columns, columns[:, :1].expand_as(columns))
    assert not torch.equal(rows[:, 0], rows[:, 1]) and not torch.equal(columns[:, :, 0], columns[:, :, 1])


@pytest.mark.parametrize(
    ("normalize_coords", "rows", "columns"),
    [
        ("separate", [-0.5, 0.5], [-0.75, -0.25, 0.25, 0.75]),
        ("max", [-0.75, -0.25], [-0.75, -0.25, 0.25, 0.75]),
        ("min", [-0.5, 0.5], [-0.5, 0.5, 1.5, 2.5]),
    ],
)
def test_centres_of_a_2_by_4_grid(normalize_coords, rows, columns):
    expected = torch.tensor([[row, column] for row in rows for column in columns])
    assert_close(coordinates(one_period_rope(normalize_coords=normalize_coords), 2, 4), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalize_coords", ["separate", "max", "min"])
@pytest.mark.parametrize("is_training", [False, True])
def test_tables_and_augmentation_equal_timm(normalize_coords, is_training, seeded):
    timm = pytest.importorskip("timm.layers.pos_embed_sincos")
    options = {
        "normalize_coords": normalize_coords,
        "shift_coords": 0.3,
        "jitter_coords": 1.5,
        "rescale_coords": 2.0,
    }
    ours = make_rope(**options).train(is_training)
    theirs = timm.RotaryEmbeddingDinoV3(64, temperature=100.0, **options).train(is_training)
    state = torch.get_rng_state()
    expected = theirs.get_embed((3, 5))
    torch.set_rng_state(state)
    assert_close(torch.cat(ours(H=3, W=5), dim=-1), expected, atol=1e-6, rtol=0)


def test_augmentation_stays_within_its_range_and_stretches_both_axes_alike(seeded):
    rope = one_period_rope(rescale_coords=2.0)
    assert not rope.eval().is_random
    plain = coordinates(rope, 2, 3)
    plain[:, 1][plain[:, 1] == 0] = 1.0
    factors = torch.stack([(coordinates(rope.train(), 2, 3) / plain)[[0, 2]] for _ in range(200)])
    assert_close(factors, factors[:, :1, :1].expand_as(factors), atol=1e-4, rtol=0)
    assert 0.5 <= factors.min() < 0.55 and 1.9 < factors.max() <= 2.0
    assert_close(factors.log().mean(), torch.tensor(0.0), atol=0.1, rtol=0)


def test_without_augmentation_train_mode_changes_nothing():
    rope = one_period_rope()
    assert not rope.train().is_random
    assert rope.rotation(2, 3, 1) is rope.eval().rotation(2, 3, 1)


def test_rotation_is_a_product_of_complex_numbers_and_spares_the_prefix(seeded):
    rope = make_rope()
    vectors = torch.randn(3, 5 + 6, 2, 2, 64)
    sine, cosine = rope(H=2, W=3)
    turns = torch.polar(torch.ones(6, 32), torch.atan2(sine, cosine)[:, :32])
    pairs = torch.complex(vectors[:, 5:, ..., :32], vectors[:, 5:, ..., 32:]) * turns[:, None, None]
    rotated = rotate(vectors, rope.rotation(2, 3, num_prefix_tokens=5))
    assert torch.equal(rotated[:, :5], vectors[:, :5])
    assert_close(rotated[:, 5:], torch.cat((pairs.real, pairs.imag), dim=-1), atol=1e-5, rtol=1e-5)


def test_products_depend_on_the_distance_of_patches_alone(seeded):
    query, key = torch.randn(2, 64)
    vectors = torch.stack((query, key)).expand(1, 16, 1, 2, 64).transpose(2, 3)
    query, key = rotate(vectors, make_rope().rotation(4, 4, 0))[0, :, :, 0].unbind(1)
    products = (query @ key.T).unflatten(0, (4, 4)).unflatten(-1, (4, 4))  # (row, column, row, column)
    assert_close(products[0, 0, 1, 2], products[2, 1, 3, 3], atol=1e-4, rtol=0)
    assert (products[0, 0, 1, 2] - products[0, 0, 2, 1]).abs() > 1e-2


def test_bfloat16_vectors_are_turned_in_float32(seeded):
    rotation = make_rope().rotation(2, 3, 0)
    vectors = torch.randn(1, 6, 2, 2, 64).bfloat16()
    assert torch.equal(rotate(vectors, rotation), rotate(vectors.float(), rotation).bfloat16())


def test_a_rotation_is_remembered_until_its_periods_change():
    rope = make_rope()
    before = rope.rotation(2, 3, 1)
    assert rope.rotation(2, 3, 1) is before and rope.rotation(3, 2, 1) is not before
    rope.load_state_dict({"periods": 2 * rope.periods})
    after = rope.rotation(2, 3, 1)
    assert_close(after.cosine[:, :], make_scaled_cosine(2), atol=1e-5, rtol=0)
    rope.reset_periods()
    assert_close(rope.rotation(2, 3, 1), before)
    assert rope.double().rotation(2, 3, 1).cosine.dtype == torch.float64


def make_scaled_cosine(factor):
    rope = make_rope()
    rope.register_buffer("periods", rope.periods * factor)
    return rope.rotation(2, 3, 1).cosine


def test_memory_of_rotations_is_bounded_and_belongs_to_no_copy_or_file():
    rope = make_rope()
    for width in range(1, REMEMBERED_SIZES + 10):
        rope.rotation(1, width, 1)
    assert 0 < len(rope._remembered) <= REMEMBERED_SIZES
    assert list(rope.state_dict()) == ["periods"]
    twin = copy.deepcopy(rope)
    assert not twin._remembered
    assert_close(twin.rotation(2, 3, 1), rope.rotation(2, 3, 1))


def test_a_rotation_made_in_prediction_serves_training(seeded):
    rope = make_rope()
    with torch.inference_mode():
        rope.rotation(2, 3, 0)
    vectors = torch.randn(1, 6, 2, 2, 64, requires_grad=True)
    rotate(vectors, rope.rotation(2, 3, 0)).sum().backward()
    assert vectors.grad is not None


def test_casting_to_a_lower_precision_keeps_the_periods():
    rope, half = make_rope(), make_rope().half().bfloat16()
    assert half.periods.dtype == torch.float32
    assert_close(half(H=2, W=3), rope(H=2, W=3))


def test_casting_to_a_higher_precision_can_be_undone():
    rope = make_rope()
    assert rope.double().periods.dtype == torch.float64
    assert rope.float().periods.dtype == torch.float32
    assert rope.double().half().periods.dtype == torch.float32
    assert_close(rope.periods, make_rope().periods)


def test_coarse_dtypes_are_available_for_models_trained_with_them():
    sine, _ = make_rope(dtype=torch.bfloat16)(H=2, W=3)
    assert sine.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "embed_dim 128 with 3 heads was given; rotary positions need a multiple of 4"),
        ({"base": None}, "base None, min_period None and max_period None .* give either base alone, or both"),
        ({"min_period": 1.0, "max_period": 2.0}, "base 100.0, min_period 1.0 .* both periods and base=None"),
        ({"base": None, "min_period": 1.0}, "give either base alone, or both periods"),
        ({"base": -1.0}, "base -1.0.*give positive numbers"),
        ({"normalize_coords": "mean"}, "normalize_coords 'mean' is unknown; choose one of min, max, separate"),
        ({"shift_coords": -0.1}, "shift_coords -0.1 was given; give None or a number of at least 0"),
        ({"rescale_coords": 0.5}, "rescale_coords 0.5 was given; give None or a factor of at least 1"),
        ({"jitter_coords": 0.0}, "jitter_coords 0.0 was given"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RopePositionEmbedding(128, **{"num_heads": 2, **options})

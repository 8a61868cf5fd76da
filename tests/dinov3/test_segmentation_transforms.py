"""Training inputs and evaluation views: sizes, alignment of image and label, randomness, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from dinov3.eval.segmentation.data.image_geometry import draw_crop, resize_image, resize_label, scaled_size
from dinov3.eval.segmentation.data.labels import reduce_zero_label
from dinov3.eval.segmentation.data.photometric_distortion import distort_colours
from dinov3.eval.segmentation.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    make_segmentation_eval_transforms,
    make_segmentation_train_transforms,
)
from dinov3.utils.errors import UsageError

UNCHANGED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose first two channels are row and column of each pixel, and a label that tells both."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.full_like(rows, 9)]).to(torch.uint8), 1000 + 100 * rows + columns


def coordinates_of(label: torch.Tensor) -> torch.Tensor:
    """Rows and columns, as the label tells them."""
    return torch.stack([(label - 1000) // 100, (label - 1000) % 100]).float()


# ---- sizes


@pytest.mark.parametrize(
    ("size", "img_size", "ratio", "expected"),
    [
        ((300, 400), 512, 1.0, (512, 683)),  # 682.67 rounds up
        ((400, 300), 512, 1.0, (683, 512)),
        ((300, 300), 512, 1.0, (512, 512)),
        ((300, 400), 512, 0.5, (256, 341)),
        ((300, 400), 512, 1.1, (563, 751)),  # 563.2 is cut off
        ((300, 400), None, 1.0, (300, 400)),
        ((300, 400), None, 2.0, (600, 800)),
        ((300, 400), (64, 32), 1.0, (64, 32)),
        ((300, 400), [64, 32], 0.5, (32, 16)),
        ((1, 400), 2, 0.1, (1, 400)),  # never less than a pixel
    ],
)
def test_the_short_side_gets_the_size_and_the_long_one_follows(size, img_size, ratio, expected) -> None:
    assert scaled_size(size, img_size, ratio) == expected


@pytest.mark.parametrize(("ratio", "short"), [(0.9, 832), (0.95, 864), (1.0, 896), (1.05, 940), (1.1, 985)])
def test_views_have_the_sizes_of_metas_ade20k_evaluation(ratio: float, short: int) -> None:
    assert scaled_size((896, 896), 896, ratio, multiple_if_reduced=32) == (short, short)


@pytest.mark.parametrize("size", [(60, 80), (17, 23), (44, 31)])
def test_resizing_equals_that_of_pillow(size: tuple[int, int], seeded: int) -> None:
    image = np.random.randint(0, 256, (30, 41, 3), dtype=np.uint8)
    label = np.random.randint(0, 200, (30, 41), dtype=np.uint8)
    turned = size[::-1]
    expected = np.asarray(Image.fromarray(image).resize(turned, Image.Resampling.BILINEAR)).astype(int)
    resized = resize_image(torch.from_numpy(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
    assert np.abs(resized - expected).max() <= 1
    expected = np.asarray(Image.fromarray(label).resize(turned, Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_label(torch.from_numpy(label).long(), size).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int16, torch.int64])
@pytest.mark.parametrize("size", [(31, 80), (9, 13)])
def test_resizing_equals_that_of_torchvision(size: tuple[int, int], dtype: torch.dtype, seeded: int) -> None:
    image = torch.randint(256, (3, 20, 37)).to(dtype)
    expected = F.resize(image, list(size), InterpolationMode.BILINEAR)
    torch.testing.assert_close(resize_image(image, size), expected, rtol=0, atol=0)
    expected = F.resize(image[:1], list(size), InterpolationMode.NEAREST_EXACT)[0]
    torch.testing.assert_close(resize_label(image[0], size), expected, rtol=0, atol=0)


def test_labels_are_never_blended() -> None:
    label = torch.tensor([[0, 65535], [254, 255]])
    assert set(resize_label(label, (7, 5)).unique().tolist()) == {0, 254, 255, 65535}


# ---- training


def test_without_any_setting_an_image_is_only_normalised(seeded: int) -> None:
    image, label = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8), torch.randint(0, 3, (5, 6))
    transform = make_segmentation_train_transforms(photometric_distortion=False)
    result, same_label = transform(image, label, generator_of(0))
    torch.testing.assert_close(result, F.normalize(image.float(), list(IMAGENET_MEAN), list(IMAGENET_STD)))
    torch.testing.assert_close(same_label, label)
    mean_of_imagenet = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    dark, _ = transform(mean_of_imagenet, torch.zeros(1, 1, dtype=torch.long), generator_of(0))
    assert dark.abs().max() < 0.01  # the scale is 0 to 255


@pytest.mark.parametrize("seed", range(8))
def test_image_and_label_show_the_same_pixels_after_crop_flip_and_padding(seed: int) -> None:
    image, label = coordinates(40, 60)
    transform = make_segmentation_train_transforms(
        crop_size=(48, 32), flip_prob=0.5, photometric_distortion=False, **UNCHANGED
    )
    result, result_label = transform(image, label, generator_of(seed))
    assert result.shape == (3, 48, 32)
    assert result_label.shape == (48, 32)
    torch.testing.assert_close(result[:2, :40], coordinates_of(result_label[:40]))
    columns = result[1, 0]
    assert columns.diff().unique().tolist() in ([1.0], [-1.0])
    assert (result_label[40:] == 255).all()
    assert (result[:, 40:] == 0).all()


def test_padding_is_the_mean_colour() -> None:
    transform = make_segmentation_train_transforms(crop_size=(4, 4))
    image, label = transform(
        torch.full((3, 2, 4), 200, dtype=torch.uint8), torch.zeros(2, 4, dtype=torch.long), generator_of(0)
    )
    assert (image[:, 2:] == 0).all()
    assert (image[:, :2] != 0).all()
    assert label.tolist() == [[0] * 4] * 2 + [[255] * 4] * 2


@pytest.mark.parametrize("seed", range(8))
def test_image_and_label_show_the_same_pixels_after_a_random_resize(seed: int) -> None:
    image, label = coordinates(48, 64)
    transform = make_segmentation_train_transforms(
        img_size=48,
        random_img_size_ratio_range=(0.4, 2.5),
        crop_size=(32, 32),
        flip_prob=0.5,
        photometric_distortion=False,
        **UNCHANGED,
    )
    result, result_label = transform(image, label, generator_of(seed))
    is_image = result_label != 255
    difference = (result[:2] - coordinates_of(result_label))[:, is_image]
    assert difference.abs().max() <= 2  # half a pixel of the coarser grid, and rounding
    assert difference.mean(dim=1).abs().max() < 0.5


def test_the_size_is_drawn_uniformly_from_the_range() -> None:
    transform = make_segmentation_train_transforms(
        img_size=100, random_img_size_ratio_range=(0.5, 2.0), photometric_distortion=False
    )
    image, label = coordinates(4, 4)
    generator = generator_of(0)
    sides = [transform(image, label, generator)[0].shape[-1] for _ in range(400)]
    assert min(sides) >= 50
    assert max(sides) < 200
    assert stats.kstest(sides, stats.uniform(50, 150).cdf).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_left_and_right_are_swapped_as_often_as_asked(probability: float) -> None:
    transform = make_segmentation_train_transforms(flip_prob=probability, photometric_distortion=False, **UNCHANGED)
    image, label = coordinates(2, 3)
    generator = generator_of(0)
    swapped = [transform(image, label, generator)[0][1, 0, 0] == 2 for _ in range(400)]
    assert np.mean(swapped) == pytest.approx(probability, abs=0.08)
    if probability in (0, 1):
        assert np.mean(swapped) == probability


def test_every_position_of_a_crop_occurs() -> None:
    label = torch.arange(12).view(3, 4)
    generator = generator_of(0)
    corners = {
        (rows.start, columns.start) for rows, columns in (draw_crop(label, (2, 2), generator) for _ in range(200))
    }
    assert corners == {(row, column) for row in range(2) for column in range(3)}


def test_crops_avoid_one_class_filling_them() -> None:
    label = torch.zeros(16, 64, dtype=torch.long)
    label[:, 32:] = 1  # 7 of 49 positions of a crop have less than 75 % of one class
    generator = generator_of(0)
    shares = []
    for _ in range(200):
        rows, columns = draw_crop(label, (16, 16), generator)
        shares.append(torch.bincount(label[rows, columns].flatten()).max().item() / 256)
    assert np.mean(np.array(shares) < 0.75) == pytest.approx(1 - (42 / 49) ** 11, abs=0.08)


def test_ignored_pixels_have_no_part_in_the_balance_of_a_crop() -> None:
    label = torch.full((8, 8), 255)
    label[0, :2] = torch.tensor([0, 1])
    generator, once = generator_of(0), generator_of(0)
    draw_crop(label, (8, 8), generator)
    for _ in range(2):
        torch.randint(1, (), generator=once)
    assert torch.equal(generator.get_state(), once.get_state())  # accepted at the first try


def test_a_class_that_fills_what_is_labelled_is_not_excused_by_ignored_pixels() -> None:
    label = torch.zeros(8, 8, dtype=torch.long)
    label[:, 3:] = 255
    generator, all_tries = generator_of(0), generator_of(0)
    draw_crop(label, (8, 8), generator)
    for _ in range(2 * 11):
        torch.randint(1, (), generator=all_tries)
    assert torch.equal(generator.get_state(), all_tries.get_state())


@pytest.mark.parametrize("label_value", [0, 255])
def test_an_image_of_one_class_or_with_everything_ignored_is_cropped_all_the_same(label_value: int) -> None:
    rows, columns = draw_crop(torch.full((8, 8), label_value), (4, 20), generator_of(0))
    assert (rows.stop - rows.start, columns) == (4, slice(0, 8))


def test_the_same_generator_state_gives_the_same_input_and_the_global_one_is_not_touched(seeded: int) -> None:
    image, label = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8), torch.randint(0, 3, (40, 50))
    transform = make_segmentation_train_transforms(
        img_size=40, random_img_size_ratio_range=(0.5, 2.0), crop_size=(32, 32), flip_prob=0.5
    )
    before = torch.get_rng_state(), image.clone(), label.clone()
    first, again, other = (transform(image, label, generator_of(seed)) for seed in (5, 5, 6))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(image, before[1])
    assert torch.equal(label, before[2])


def test_zero_labels_are_ignored_and_the_others_count_from_zero() -> None:
    label = torch.tensor([[0, 1, 2], [150, 255, 254]])
    expected = [[255, 0, 1], [149, 255, 253]]
    assert reduce_zero_label(label).tolist() == expected
    image = torch.zeros(3, 2, 3, dtype=torch.uint8)
    train = make_segmentation_train_transforms(reduce_zero_label=True, crop_size=(2, 4))
    assert train(image, label, generator_of(0))[1].tolist() == [[*row, 255] for row in expected]
    assert make_segmentation_eval_transforms(reduce_zero_label=True)(image, label)[1].tolist() == expected


# ---- colours


def test_one_image_in_sixteen_keeps_its_colours() -> None:
    generator = generator_of(0)
    image = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8, generator=generator)
    kept = [torch.equal(distort_colours(image, generator), image) for _ in range(1000)]
    assert np.mean(kept) == pytest.approx(1 / 16, abs=0.02)


def test_black_changes_by_brightness_alone() -> None:
    generator = generator_of(0)
    black = torch.zeros(3, 2, 2, dtype=torch.uint8)
    results = [distort_colours(black, generator) for _ in range(400)]
    assert all((result == result[0, 0, 0]).all() for result in results)
    values = np.array([result[0, 0, 0].item() for result in results])
    assert np.mean(values > 0) == pytest.approx(1 / 4, abs=0.06)  # in half of all images, upwards in half of those
    assert 40 < values.max() <= 48  # 32, stretched by up to 1.5


def test_grey_stays_grey_and_hue_turns_all_the_way() -> None:
    generator = generator_of(0)
    grey = torch.arange(0, 250, 10, dtype=torch.uint8).expand(3, 5, 25).contiguous()
    red = torch.tensor([200, 20, 20], dtype=torch.uint8)[:, None, None]
    strongest = set()
    for _ in range(100):
        result = distort_colours(grey, generator).int()
        assert (result - result[:1]).abs().max() <= 1  # rounding
        strongest.add(distort_colours(red, generator).flatten().argmax().item())
    assert strongest == {0, 1, 2}


# ---- evaluation


def test_one_view_unless_test_time_augmentation_is_asked_for(seeded: int) -> None:
    image, label = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8), torch.randint(0, 3, (30, 40))
    (view,), same_label = make_segmentation_eval_transforms(img_size=60, tta_ratios=(0.5, 2.0), **UNCHANGED)(
        image, label
    )
    assert not view.is_flipped
    torch.testing.assert_close(view.image, F.resize(image, [60, 80]).float())
    torch.testing.assert_close(same_label, label)


def test_views_of_all_ratios_come_first_and_then_their_mirror_images(seeded: int) -> None:
    image, label = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8), torch.randint(0, 3, (30, 40))
    transform = make_segmentation_eval_transforms(img_size=60, tta_ratios=[0.9, 1.0, 1.1], use_tta=True)
    views, same_label = transform(image, label)
    assert [tuple(view.image.shape[1:]) for view in views] == [(64, 85), (60, 80), (66, 88)] * 2
    assert [view.is_flipped for view in views] == [False] * 3 + [True] * 3
    for straight, flipped in zip(views[:3], views[3:], strict=True):
        torch.testing.assert_close(flipped.image, F.hflip(straight.image))
    assert same_label.shape == (30, 40)


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"img_size": 0}, r"transforms\.train\.img_size=0 is not a size; give a number of pixels or \[height, width\]"),
        ({"img_size": [8, 8, 8]}, r"img_size=\[8, 8, 8\] is not a size"),
        ({"img_size": 8.5}, r"img_size=8\.5 is not a size"),
        ({"crop_size": 8}, r"crop_size=8 is not a size; give \[height, width\]"),
        ({"crop_size": (8, 0)}, r"crop_size=\(8, 0\) is not a size; give \[height, width\]"),
        ({"random_img_size_ratio_range": (2.0, 0.5)}, r"ratio_range=\(2\.0, 0\.5\); give \[smallest, largest\]"),
        ({"random_img_size_ratio_range": (0.0, 0.5)}, r"give numbers above 0"),
        ({"flip_prob": 1.5}, r"flip_prob=1\.5 is no probability; give a number between 0 and 1"),
        ({"mean": (0.5,)}, r"transforms\.mean=\(0\.5,\).*one number for each of the three channels"),
        ({"std": (1.0, 1.0, 0.0)}, r"every std above 0"),
    ],
)
def test_impossible_settings_of_the_training_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_segmentation_train_transforms(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"img_size": -1}, r"transforms\.eval\.img_size=-1 is not a size"),
        ({"tta_ratios": []}, r"transforms\.eval\.tta_ratios=\[\]; give numbers above 0"),
        ({"tta_ratios": [1.0, float("nan")]}, r"tta_ratios=\[1\.0, nan\]"),
    ],
)
def test_impossible_settings_of_the_evaluation_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_segmentation_eval_transforms(**settings)

"""Which samples a process draws: every draw follows from the seed and its position alone, and errors stay one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov3.eval.segmentation.data.batches import (
    PositionSampler,
    evaluation_samples,
    sample_of_position,
    training_batches,
)
from dinov3.eval.segmentation.data.dataset import SegmentationDataset, make_dataset
from dinov3.eval.segmentation.data.labels import SemanticToM2FTargets
from dinov3.eval.segmentation.transforms import make_segmentation_eval_transforms, make_segmentation_train_transforms
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.png_folder import save_pixels

NUM_SAMPLES = 5
TRANSFORM = make_segmentation_train_transforms(
    img_size=16, random_img_size_ratio_range=(0.5, 2.0), crop_size=(16, 16), flip_prob=0.5
)
PLAIN = make_segmentation_train_transforms(photometric_distortion=False, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    """Sample i has red i in all its pixels."""
    rng = np.random.default_rng(0)
    for index in range(NUM_SAMPLES):
        image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        image[..., 0] = index
        save_pixels(tmp_path / f"images/training/{index}.png", image)
        save_pixels(tmp_path / f"annotations/training/{index}.png", rng.integers(0, 3, (20, 24), dtype=np.uint8))
    return make_dataset("ADE20K:split=TRAIN", tmp_path)


def batches(dataset: SegmentationDataset, transform=TRANSFORM, **settings) -> list[dict]:
    return list(training_batches(dataset, transform, **{"batch_size": 2, "seed": 3, "total_iter": 4, **settings}))


def assert_same_data(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_batch_holds_images_labels_and_positions(dataset: SegmentationDataset) -> None:
    result = batches(dataset)
    assert len(result) == 4
    assert result[1].keys() == {"image", "label", "position"}
    assert result[1]["image"].shape == (2, 3, 16, 16)
    assert result[1]["image"].dtype == torch.float32
    assert result[1]["label"].shape == (2, 16, 16)
    assert result[1]["label"].dtype == torch.int64
    assert [batch["position"].tolist() for batch in result] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_masks_come_with_the_batch_if_asked_for(dataset: SegmentationDataset) -> None:
    targets = SemanticToM2FTargets(3)
    for batch in batches(dataset, targets=targets):
        assert batch["valid"].shape == (2, 16, 16)
        for label, valid, target in zip(batch["label"], batch["valid"], batch["targets"], strict=True):
            expected = targets(label)
            torch.testing.assert_close({**target, "valid": valid}, expected)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own(dataset: SegmentationDataset) -> None:
    drawn = [int(batch["image"][0, 0, 0, 0]) for batch in batches(dataset, PLAIN, batch_size=1, total_iter=30)]
    epochs = [drawn[start : start + NUM_SAMPLES] for start in range(0, 30, NUM_SAMPLES)]
    assert all(sorted(epoch) == list(range(NUM_SAMPLES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    assert drawn == [sample_of_position(position, NUM_SAMPLES, 3) for position in range(30)]


def test_all_samples_take_all_places_of_an_epoch_alike() -> None:
    places = np.array([[sample_of_position(epoch * 4 + place, 4, 7) for place in range(4)] for epoch in range(800)])
    for place in range(4):
        counts = np.bincount(places[:, place], minlength=4)
        assert np.abs(counts - 200).max() < 60  # five standard deviations


def test_another_seed_draws_otherwise(dataset: SegmentationDataset) -> None:
    one, other = batches(dataset, seed=3), batches(dataset, seed=4)
    assert not torch.equal(one[0]["image"], other[0]["image"])


def test_a_sample_is_augmented_otherwise_in_every_draw(dataset: SegmentationDataset) -> None:
    alone = dataclasses.replace(dataset, images=dataset.images[:1], masks=dataset.masks[:1])
    images = torch.cat([batch["image"] for batch in batches(alone, total_iter=10)])
    assert len(images.flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(dataset: SegmentationDataset, num_workers: int) -> None:
    targets = SemanticToM2FTargets(3)
    assert_same_data(batches(dataset, num_workers=num_workers, targets=targets), batches(dataset, targets=targets))


def test_two_processes_share_the_batches_of_one(dataset: SegmentationDataset) -> None:
    one = batches(dataset, batch_size=4)
    first, second = (batches(dataset, batch_size=2, rank=rank, world_size=2) for rank in range(2))
    together = [
        {key: torch.cat([mine[key], yours[key]]) for key in mine} for mine, yours in zip(first, second, strict=True)
    ]
    assert_same_data(together, one)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_what_it_would_have_seen(dataset: SegmentationDataset, num_workers: int) -> None:
    whole = batches(dataset, total_iter=7)
    assert_same_data(batches(dataset, total_iter=7, start_iteration=4, num_workers=num_workers), whole[4:])
    assert batches(dataset, total_iter=7, start_iteration=7) == []


def test_a_batch_may_be_larger_than_the_dataset(dataset: SegmentationDataset) -> None:
    (batch,) = batches(dataset, PLAIN, batch_size=2 * NUM_SAMPLES, total_iter=1)
    drawn = batch["image"][:, 0, 0, 0].tolist()
    assert sorted(drawn) == sorted([*range(NUM_SAMPLES)] * 2)


def test_the_global_random_state_is_neither_read_nor_changed(dataset: SegmentationDataset) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = batches(dataset, num_workers=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same_data(batches(dataset, num_workers=1), one)


def test_the_sampler_knows_how_many_iterations_are_left() -> None:
    sampler = PositionSampler(batch_size=3, start_iteration=2, total_iter=4, rank=1, world_size=2)
    assert len(sampler) == 2
    assert list(sampler) == [[15, 16, 17], [21, 22, 23]]
    assert len(PositionSampler(3, 5, 4)) == 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    dataset: SegmentationDataset, tmp_path: Path, num_workers: int
) -> None:
    save_pixels(tmp_path / "annotations/training/2.png", np.full((20, 24), 3, dtype=np.uint8))
    checked = make_dataset("ADE20K:split=TRAIN", tmp_path, num_classes=3)
    with pytest.raises(DataError, match=r"^[^\n]*annotations.training.2\.png holds the label 3; [^\n]*$"):
        batches(checked, num_workers=num_workers)
    evaluated = evaluation_samples(checked, make_segmentation_eval_transforms(), num_workers=num_workers)
    with pytest.raises(DataError, match=r"^[^\n]*annotations.training.2\.png holds the label 3; [^\n]*$"):
        list(evaluated)


def test_images_of_different_sizes_in_one_batch_are_refused(dataset: SegmentationDataset, tmp_path: Path) -> None:
    save_pixels(tmp_path / "images/training/2.png", np.zeros((8, 9, 3), dtype=np.uint8))
    save_pixels(tmp_path / "annotations/training/2.png", np.zeros((8, 9), dtype=np.uint8))
    message = (
        r"different sizes \(\[\(8, 9\), \(20, 24\)\]\); set transforms\.train\.crop_size=\[height, width\], or bs=1"
    )
    with pytest.raises(UsageError, match=message):
        batches(dataset, PLAIN)
    assert len(batches(dataset, PLAIN, batch_size=1)) == 4


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (2, 0), (3, 0), (7, 0)])
def test_evaluation_reads_every_sample_once(dataset: SegmentationDataset, world_size: int, num_workers: int) -> None:
    transform = make_segmentation_eval_transforms(img_size=10, tta_ratios=(1.0, 2.0), use_tta=True)
    shares = [
        list(evaluation_samples(dataset, transform, rank=rank, world_size=world_size, num_workers=num_workers))
        for rank in range(world_size)
    ]
    assert sorted(name for share in shares for name, _, _ in share) == dataset.names
    for name, views, label in shares[0]:
        sample = dataset[dataset.names.index(name)]
        expected_views, expected_label = transform(sample.image, sample.label)
        torch.testing.assert_close(label, expected_label)
        assert [view.is_flipped for view in views] == [False, False, True, True]
        for view, expected in zip(views, expected_views, strict=True):
            torch.testing.assert_close(view.image, expected.image)

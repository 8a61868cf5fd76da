"""Augmentation on the device, here on torch's CPU, gives the batches of the pipeline on the CPU."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation import da5_pipeline, default_pipeline, pipeline, resize_crop_flip
from nnunetv2.training.data_augmentation.custom_transforms.spatial import SpatialTransform
from nnunetv2.training.data_augmentation.custom_transforms.tubes import followed_by_tubes
from nnunetv2.training.data_augmentation.on_device.recipe import recipe_of
from nnunetv2.training.data_augmentation.patch_geometry import augmentation_geometry
from nnunetv2.training.dataloading.augmenters import has_random_workers, make_augmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice
from nnunetv2.training.dataloading.drawing_loader import DrawingDataLoader
from nnunetv2.training.dataloading.random_streams import TRAINING_STREAM, SampleStreams
from nnunetv2.training.loss.loss_config import LabelTask
from tests.recorded.make_loader_batches import MemoryCases

CPU = torch.device("cpu")
NUM_BATCHES = 5
TOLERANCE = 1e-4
SPARSE = SimpleNamespace(all_labels=[0, 1, 2], has_ignore_label=True)
DENSE = SimpleNamespace(all_labels=[0, 1, 2, 3], has_ignore_label=False)
REGIONS: dict[str, Any] = {"regions": [(1, 2), (2,)], "ignore_label": 3}
CASCADE: dict[str, Any] = {"is_cascaded": True, "foreground_labels": [1, 2]}


def _nnunet(
    patch: tuple[int, ...],
    scales: Any = None,
    augmentation: pipeline.Augmentation = default_pipeline.DEFAULT,
    **labels: Any,
) -> tuple[Any, Any, Any]:
    """Size of the crop, size of the patch and transforms of nnU-Net's augmentation."""
    rotation, dummy_2d, cut_size, axes = augmentation_geometry(patch)
    build = pipeline.training_transforms_of(augmentation)
    return cut_size, patch, build(patch, rotation, scales, axes, dummy_2d, **labels)


def _resize_crop_flip(patch: tuple[int, ...], **labels: Any) -> tuple[Any, Any, Any]:
    rotation, dummy_2d, cut_size, axes = resize_crop_flip.resize_crop_flip_geometry(patch)
    transforms = resize_crop_flip.resize_crop_flip_transforms(patch, rotation, None, axes, dummy_2d, **labels)
    return cut_size, patch, transforms


def _with_tubes(patch: tuple[int, ...]) -> tuple[Any, Any, Any]:
    cut_size, patch, transforms = _nnunet(patch, [[1.0, 1.0], [0.5, 0.5]])
    return cut_size, patch, followed_by_tubes(transforms, LabelTask(4, False, None, False, False))


MASKED = {"use_mask_for_norm": [False, True]}
TRAININGS = {
    "2d": lambda: _nnunet((24, 20), [[1.0, 1.0], [0.5, 0.5], [0.3, 0.25]], **MASKED),
    "2d, labels by the nearest voxel": lambda: _nnunet((24, 20), None, default_pipeline.LABELS_BY_NEAREST),
    "2d, regions, ignore": lambda: _nnunet((24, 20), [[1.0, 1.0], [0.5, 0.5]], **REGIONS),
    "2d, tubes": lambda: _with_tubes((24, 20)),
    "3d": lambda: _nnunet((12, 16, 18), [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]], **MASKED),
    "3d, regions, ignore": lambda: _nnunet((12, 16, 18), **REGIONS),
    "3d, cascade": lambda: _nnunet((12, 16, 18), None, **CASCADE, **MASKED),
    "few slices": lambda: _nnunet((3, 24, 20), [[1.0, 1.0, 1.0], [1.0, 0.5, 0.5]]),
    "few slices, cascade, regions, ignore": lambda: _nnunet((6, 20, 20), None, **CASCADE, **REGIONS),
    "resize, crop, flip": lambda: _resize_crop_flip((24, 20), **MASKED),
    "resize, crop, flip, regions": lambda: _resize_crop_flip((24, 20), **REGIONS),
    "none": lambda: ((24, 20), (24, 20), pipeline.validation_transforms([[1.0, 1.0], [0.5, 0.5]])),
}


def _applied_often(transforms: Any) -> Any:
    """The same pipeline with probabilities at which a few batches meet every transform."""
    for transform in getattr(transforms, "transforms", [transforms]):
        if isinstance(transform, ComposeTransforms):
            _applied_often(transform)
        if isinstance(transform, SpatialTransform):
            transform.p_rotation = transform.p_scaling = 0.4
        if hasattr(transform, "apply_probability"):
            transform.apply_probability = 0.5
    return transforms


def make_loader(name: str, kind: type[nnUNetDataLoader], *, keeps_labels: bool = False) -> nnUNetDataLoader:
    cut_size, patch, transforms = TRAININGS[name]()
    is_sparse, is_cascaded = "ignore" in name or "regions" in name, "cascade" in name
    cases = MemoryCases(is_cascaded, 3 if is_sparse else None)
    labels = SPARSE if is_sparse else DENSE
    options = {"keeps_labels": keeps_labels} if kind is DrawingDataLoader else {}
    return kind(cases, 4, cut_size, patch, labels, 0.33, transforms=_applied_often(transforms), **options)


def _on_device(loader: DrawingDataLoader, num_workers: int = 0) -> AugmentedOnDevice:
    return AugmentedOnDevice(make_augmenter(loader, num_workers), CPU)


def seed_generators(seed: int) -> None:
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)


def _drawn(batches: Iterator[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], tuple[float, ...]]:
    """Some batches that all come from one stream of random numbers, and the numbers that come next."""
    seed_generators(seed)
    taken = list(islice(batches, NUM_BATCHES))
    return taken, (random.random(), np.random.uniform(), torch.rand(()).item())


def targets_of(batch: dict[str, Any]) -> list[torch.Tensor]:
    return batch["target"] if isinstance(batch["target"], list) else [batch["target"]]


def _assert_same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert list(one["keys"]) == list(other["keys"])
        torch.testing.assert_close(one["data"], other["data"], rtol=0, atol=TOLERANCE)
        assert isinstance(one["target"], list) == isinstance(other["target"], list)
        for labels, expected in zip(targets_of(one), targets_of(other), strict=True):
            assert labels.dtype == expected.dtype
            assert torch.equal(labels, expected)


@pytest.mark.parametrize("keeps_labels", [False, True])
@pytest.mark.parametrize("name", TRAININGS)
def test_batches_and_random_numbers_are_those_of_the_cpu(name: str, keeps_labels: bool) -> None:
    for seed in range(2):
        theirs, their_next = _drawn(make_loader(name, nnUNetDataLoader), seed)
        loader = make_loader(name, DrawingDataLoader, keeps_labels=keeps_labels)
        ours, our_next = _drawn(_on_device(loader), seed)
        assert our_next == their_next
        _assert_same(ours, theirs)
        assert loader.recipe.keeps_labels == (keeps_labels or "cascade" in name or "tubes" in name)


@pytest.mark.parametrize("name", ["few slices", "2d, tubes"])
def test_workers_make_the_same_batches(name: str) -> None:
    loader = make_loader(name, DrawingDataLoader)
    loader.streams = SampleStreams(3, TRAINING_STREAM, 0, 0)
    batches = _on_device(loader, num_workers=1)
    expected = make_loader(name, nnUNetDataLoader)
    expected.streams = loader.streams
    try:
        _assert_same(list(islice(batches, 2)), list(islice(expected, 2)))
        assert not has_random_workers(batches)
        assert batches.generator.transforms is loader.transforms
        assert batches.batches.process_ids()
    finally:
        batches._finish()
    assert not batches.batches.process_ids()


def test_workers_without_streams_count_as_random() -> None:
    assert has_random_workers(_on_device(make_loader("2d", DrawingDataLoader), num_workers=1))


class _OwnNoise(GaussianNoiseTransform):
    """May do anything."""


def _user_transforms() -> dict[str, list[BasicTransform]]:
    spatial = SpatialTransform((8, 8), 0, False, p_elastic_deform=1)
    return {
        "_OwnNoise": [MirrorTransform((0,)), _OwnNoise()],
        "GaussianNoiseTransform": [GaussianNoiseTransform(noise_variance=lambda image: image.mean())],
        "SpatialTransform": [spatial],
    }


@pytest.mark.parametrize("name", ["_OwnNoise", "GaussianNoiseTransform", "SpatialTransform"])
def test_what_the_device_cannot_apply_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=rf"-augmentation_device cuda cannot apply {name} of this trainer's"):
        recipe_of(ComposeTransforms(_user_transforms()[name]))


class _LabelsShifted(SegOnlyTransform):
    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        return segmentation + np.random.randint(5)


class _DrawsFromImage(_LabelsShifted):
    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        return {"mean": data_dict["image"].mean()}


def test_a_users_transform_of_labels_alone_stays_in_the_workers() -> None:
    drawn = []
    for kind in (nnUNetDataLoader, DrawingDataLoader):
        loader = make_loader("2d", kind)
        loader.transforms = ComposeTransforms(
            [*loader.transforms.transforms[:-1], _LabelsShifted(), MirrorTransform((1,))]
        )
        if kind is DrawingDataLoader:
            loader.recipe = recipe_of(loader.transforms)
            assert loader.recipe.keeps_labels
            loader = _on_device(loader)
        drawn.append(_drawn(loader, 4))
    assert drawn[0][1] == drawn[1][1]
    _assert_same(drawn[1][0], drawn[0][0])
    with pytest.raises(UsageError, match="cannot apply _DrawsFromImage"):
        recipe_of(ComposeTransforms([_DrawsFromImage()]))


def test_da5_is_refused_with_the_names_of_what_is_missing() -> None:
    cut_size, patch, transforms = _nnunet((24, 24), None, da5_pipeline.DA5)
    with pytest.raises(UsageError, match="OneOfTransform.*LocalGammaTransform.*SharpeningTransform") as refusal:
        recipe_of(transforms)
    assert "\n" not in str(refusal.value)


def test_images_after_the_previous_stage_joined_them_are_refused() -> None:
    transforms = _nnunet((12, 16, 18), None, **CASCADE)[2]
    with pytest.raises(UsageError, match="cannot apply MirrorTransform"):
        recipe_of(ComposeTransforms([*transforms.transforms, MirrorTransform((0,))]))

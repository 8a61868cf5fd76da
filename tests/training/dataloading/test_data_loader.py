"""Seeded batches equal upstream's; sizes, padding and oversampling of the loader."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunetv2.errors import DataError
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from tests.recorded import make_loader_batches as recording

RECORDED = json.loads((Path(recording.__file__).parent / "loader_batches.json").read_text())
PLAIN = SimpleNamespace(all_labels=[0, 1, 2, 3], has_ignore_label=False)
SPARSE = SimpleNamespace(all_labels=[0, 1, 2], has_ignore_label=True)


def _assert_same_batches(ours, recorded):
    assert [keys for keys, _ in ours] == [keys for keys, _ in recorded]
    for (_, numbers), (_, expected) in zip(ours, recorded, strict=True):
        np.testing.assert_allclose(numbers, expected, rtol=1e-4, atol=0.02)


@pytest.mark.parametrize("seed,name", list(enumerate(RECORDED["synthetic"])))
def test_seeded_batches_equal_upstream(seed, name):
    loader = recording.synthetic_loaders()[name]
    _assert_same_batches(recording.batches(loader, seed), RECORDED["synthetic"][name])


@pytest.mark.oracle
@pytest.mark.parametrize("name", RECORDED["recorded"])
def test_seeded_batches_of_preprocessed_datasets_equal_upstream(oracle_recorded, name):
    loader = recording.recorded_loader(oracle_recorded / "preprocessed", *name.split())
    _assert_same_batches(recording.batches(loader, 0), RECORDED["recorded"][name])


def test_same_seed_gives_the_same_bits():
    loaders = (recording.synthetic_loaders()["3d, drawn oversampling"] for _ in range(2))
    first, second = (_seeded_batch(loader) for loader in loaders)
    torch.testing.assert_close(first["data"], second["data"], rtol=0, atol=0)


def _seeded_batch(loader: nnUNetDataLoader) -> dict:
    np.random.seed(5)
    torch.manual_seed(5)
    return next(loader)


@pytest.mark.parametrize(
    ("batch_size", "percent", "num_foreground"), [(2, 0.33, 1), (12, 0.33, 4), (3, 0.0, 0), (3, 1.0, 3), (4, 0.5, 2)]
)
def test_the_last_samples_show_foreground(batch_size, percent, num_foreground):
    loader = nnUNetDataLoader(recording.MemoryCases(), batch_size, (8, 8), (8, 8), PLAIN, percent)
    forced = [loader.get_do_oversample(index) for index in range(batch_size)]
    assert forced == [False] * (batch_size - num_foreground) + [True] * num_foreground


def test_drawn_oversampling_has_the_asked_share(seeded):
    loader = nnUNetDataLoader(recording.MemoryCases(), 2, (8, 8), (8, 8), PLAIN, 0.3, probabilistic_oversampling=True)
    assert np.mean([loader.get_do_oversample(0) for _ in range(2000)]) == pytest.approx(0.3, abs=0.04)


def test_forced_patches_contain_foreground(seeded):
    cases = recording.MemoryCases()
    cases.identifiers = cases.identifiers[:3]  # the fourth has none
    loader = nnUNetDataLoader(cases, 8, (3, 4, 4), (3, 4, 4), PLAIN, 1.0)
    target = next(loader)["target"]
    assert all((sample > 0).any() for sample in target)


def test_patches_of_sparse_cases_contain_annotation(seeded):
    cases = recording.MemoryCases(ignore_label=3)
    loader = nnUNetDataLoader(cases, 16, (3, 3, 3), (3, 3, 3), SPARSE, 0.0)
    target = next(loader)["target"]
    assert all((sample != 3).any() for sample in target)


def test_outside_of_the_case_is_zero_and_minus_one(seeded):
    cases = recording.MemoryCases()
    batch = next(nnUNetDataLoader(cases, 1, (40, 64, 64), (40, 64, 64), PLAIN))
    image, seg, _, _ = cases.load_case(batch["keys"][0])
    assert torch.count_nonzero(batch["data"]) == np.count_nonzero(image)
    assert (batch["target"] != -1).sum() == (seg != -1).sum()


@pytest.mark.parametrize(("patch", "shape"), [((8, 10), (3, 2, 8, 10)), ((4, 8, 10), (3, 2, 4, 8, 10))])
def test_batch_shapes_and_types(patch, shape):
    batch = next(nnUNetDataLoader(recording.MemoryCases(), 3, patch, patch, PLAIN))
    assert batch["data"].shape == shape and batch["data"].dtype == torch.float32
    assert batch["target"].shape == (3, 1, *shape[2:]) and batch["target"].dtype == torch.int16
    assert len(batch["keys"]) == 3


def test_previous_stage_is_a_second_channel():
    batch = next(nnUNetDataLoader(recording.MemoryCases(True), 2, (4, 8, 8), (4, 8, 8), PLAIN))
    assert batch["target"].shape[1] == 2


def test_patches_reach_the_border_of_the_final_patch(seeded):
    loader = nnUNetDataLoader(recording.MemoryCases(), 1, (4, 12, 12), (4, 8, 8), PLAIN, pad_sides=(0, 2, 0))
    assert list(loader.need_to_pad) == [0, 6, 4]
    first = np.array([loader.get_bbox((10, 28, 30), False, None)[0] for _ in range(500)])
    assert first.min(0).tolist() == [0, -3, -2]
    assert first.max(0).tolist() == [6, 28 + 3 - 12, 30 + 2 - 12]


def test_wanted_class_is_shown(seeded):
    loader = nnUNetDataLoader(recording.MemoryCases(), 1, (4, 8, 8), (4, 8, 8), PLAIN)
    locations = {1: np.array([[0, 2, 4, 4]]), 2: np.array([[0, 8, 20, 22]])}
    first, last = loader.get_bbox((10, 28, 30), True, locations, overwrite_class=2)
    assert (first, last) == ([6, 16, 18], [10, 24, 26])


def test_missing_class_locations_are_refused():
    loader = nnUNetDataLoader(recording.MemoryCases(), 1, (4, 8, 8), (4, 8, 8), PLAIN)
    with pytest.raises(DataError, match="has no class_locations, preprocess it again"):
        loader.get_bbox((10, 28, 30), True, None)


def test_an_empty_dataset_is_refused():
    with pytest.raises(DataError, match="no case to draw batches from"):
        nnUNetDataLoader(SimpleNamespace(identifiers=[]), 2, (8, 8), (8, 8), PLAIN)


def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        next(nnUNetDataLoader(recording.MemoryCases(), 1, (8, 8), (8, 8), PLAIN))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_loader_can_be_sent_to_spawned_workers():
    loader = recording.synthetic_loaders()["dummy 2d, cascade, regions, ignore"]
    copy = pickle.loads(pickle.dumps(loader))
    torch.testing.assert_close(_seeded_batch(copy)["data"], _seeded_batch(loader)["data"], rtol=0, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["2d", "dummy 2d, cascade, regions, ignore", "3d, drawn oversampling"])
def test_reading_the_drawn_crop_alone_changes_no_batch(name: str, share: float) -> None:
    batches = []
    for reads_all in (False, True):
        loader = recording.synthetic_loaders()[name]
        steps = loader.transforms.transforms
        for step in steps[:2]:
            step.p_rotation = step.p_scaling = share
        if reads_all:
            loader.transforms = ComposeTransforms([ComposeTransforms(steps)])  # it does not start with the crop
        batches.append([_seeded_batch(loader)] + [next(loader) for _ in range(7)])
    for ours, expected in zip(*batches, strict=True):
        torch.testing.assert_close(ours["data"], expected["data"], rtol=0, atol=0)
        torch.testing.assert_close(ours["target"], expected["target"], rtol=0, atol=0)


def test_samples_that_are_only_cropped_are_read_to_the_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    apply = ComposeTransforms.apply

    def noted(self: ComposeTransforms, sample: dict, **params: object) -> dict:
        shapes.append(tuple(sample["image"].shape))
        return apply(self, sample, **params)

    monkeypatch.setattr(ComposeTransforms, "apply", noted)
    loader = recording.synthetic_loaders()["2d"]
    first = loader.transforms.transforms[0]
    first.p_rotation = first.p_scaling = 0
    _seeded_batch(loader)
    assert shapes == [(2, 24, 20)] * 6
    first.p_rotation = 1
    next(loader)
    assert shapes[6:] == [(2, *loader.patch_size[1:])] * 6

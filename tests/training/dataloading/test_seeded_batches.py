"""Batches of a seeded training: the same for any number of workers and processes, and after an interruption."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.training.dataloading.augmenters import make_augmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.random_streams import (
    TRAINING_STREAM,
    VALIDATION_STREAM,
    SampleStreams,
    sample_generators,
)
from nnunetv2.training.setup.distributed import share_of_batch
from tests.recorded import make_loader_batches as recording

FORCED, DRAWN, BARE = "2d", "3d, drawn oversampling", "no transforms"


def _loader(name: str, seed: int = 3, stream: int = TRAINING_STREAM, first_batch: int = 0) -> nnUNetDataLoader:
    loader = recording.synthetic_loaders()[name]
    loader.streams = SampleStreams(seed, stream, first_batch, 0)
    return loader


def _tensors(batch: dict[str, Any]) -> list[torch.Tensor]:
    return [batch["data"], *(batch["target"] if isinstance(batch["target"], list) else [batch["target"]])]


def _assert_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Same cases, same bits."""
    assert [list(batch["keys"]) for batch in ours] == [list(batch["keys"]) for batch in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(_tensors(one), _tensors(other), strict=True):
            assert torch.equal(a, b)


def _is_same_data(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return torch.equal(one["data"], other["data"])


@pytest.mark.parametrize(
    "num_workers", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_any_number_of_workers_makes_the_same_batches(num_workers):
    augmenter = make_augmenter(_loader(FORCED), num_workers)
    try:
        _assert_equal(list(islice(augmenter, 5)), list(islice(_loader(FORCED), 5)))
    finally:
        augmenter._finish(timeout=1)


@pytest.mark.parametrize(("name", "world_size"), [(FORCED, 2), (FORCED, 4), (DRAWN, 2), (BARE, 2)])
def test_processes_together_make_the_batch_of_one(name, world_size):
    whole = _loader(name)
    is_drawn, share = whole.get_do_oversample == whole._probabilistic_oversampling, whole.oversample_foreground_percent
    parts, first = [], 0
    for rank in range(world_size):
        part = _loader(name)
        part.batch_size, forced = share_of_batch(whole.batch_size, share, rank, world_size)
        part.oversample_foreground_percent = share if is_drawn else forced
        part.streams = part.streams._replace(first_sample=first)
        first += part.batch_size
        parts.append(part)
    for _ in range(3):
        shares, batch = [next(part) for part in parts], next(whole)
        assert [key for share in shares for key in share["keys"]] == list(batch["keys"])
        for of_processes, of_one in zip(zip(*map(_tensors, shares), strict=True), _tensors(batch), strict=True):
            assert torch.equal(torch.cat(of_processes), of_one)


def test_a_training_that_goes_on_gets_the_batches_that_it_would_have_got():
    _assert_equal(list(islice(_loader(FORCED, first_batch=2), 2)), list(islice(_loader(FORCED), 4))[2:])


def test_batches_samples_streams_and_seeds_differ():
    first, second = islice(_loader(BARE), 2)
    others = [second, next(_loader(BARE, stream=VALIDATION_STREAM)), next(_loader(BARE, seed=4))]
    assert not any(_is_same_data(first, other) for other in others)
    assert len({sample.double().sum().item() for batch in islice(_loader(FORCED), 3) for sample in batch["data"]}) == 18


def _draw() -> tuple[float, float, float]:
    return random.random(), np.random.uniform(), torch.rand(()).item()


def test_the_generators_of_the_process_are_neither_used_nor_moved(seeded):
    without = _draw()
    random.seed(seeded), np.random.seed(seeded), torch.manual_seed(seeded)
    first = next(_loader(FORCED))
    assert _draw() == without
    _assert_equal([first], [next(_loader(FORCED))])


class _BrokenTransform:
    def __call__(self, **sample: Any) -> dict[str, Any]:
        raise KeyError("image")


def test_a_failure_leaves_the_generators_where_they_were(seeded):
    without = _draw()
    random.seed(seeded), np.random.seed(seeded), torch.manual_seed(seeded)
    loader = _loader(FORCED)
    loader.transforms = _BrokenTransform()
    with pytest.raises(KeyError):
        next(loader)
    assert _draw() == without


def test_python_numpy_and_torch_draw_unrelated_numbers():
    drawn = []
    for batch in range(200):
        with sample_generators(SampleStreams(3, TRAINING_STREAM, 0, 0), batch, 0):
            drawn.append(_draw())
    assert len(np.unique(drawn)) == np.size(drawn)
    assert np.abs(np.triu(np.corrcoef(drawn, rowvar=False), 1)).max() < 0.25


def test_own_choices_of_cases_are_made_for_each_sample():
    class OnlyOneCase(nnUNetDataLoader):
        def get_indices(self) -> list[str]:
            return ["case_2"] * self.batch_size

    original = _loader(BARE)
    loader = OnlyOneCase(
        original._data, 2, (16, 16), (16, 16), recording.SimpleNamespace(all_labels=[], has_ignore_label=False)
    )
    loader.streams = original.streams
    assert list(next(loader)["keys"]) == ["case_2", "case_2"]

"""Labels computed by torch on the device of the logits: those of the CPU path, or none where it has to be taken."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunetv2.inference import device_labels
from nnunetv2.inference.export_prediction import (
    convert_logits_on_device,
    convert_predicted_logits_to_segmentation_with_correct_shape,
    revert_cropping_and_transposition,
)
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from tests.inference.tiny_models import CPU

PLANS = SimpleNamespace(transpose_forward=[1, 2, 0], transpose_backward=[2, 0, 1])
OLD_SHAPE, NEW_SHAPE = (11, 14, 6), (16, 21, 9)
PROPERTIES = {
    "spacing": [1.0, 1.0, 1.0],
    "shape_before_cropping": (20, 30, 10),
    "bbox_used_for_cropping": [[2, 18], [5, 26], [0, 9]],
    "shape_after_cropping_and_before_resampling": NEW_SHAPE,
}
DEFAULT = functools.partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
MANAGERS = {
    "labels": LabelManager({"background": 0, "a": 1, "b": 2, "c": 3}, None),
    "regions": LabelManager({"background": 0, "whole": [1, 2, 300], "core": [2, 300], "edge": [300]}, [1, 2, 300]),
    "300 labels": LabelManager({"background": 0, **{f"l{i}": i for i in range(1, 300)}}, None),
}


def configuration(resampling: functools.partial = DEFAULT) -> SimpleNamespace:
    return SimpleNamespace(spacing=[1.5, 1.5, 1.5], resampling_fn_probabilities=resampling)


def make_logits(number: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 8, (number, *OLD_SHAPE))).half()


def on_device(logits: torch.Tensor, labels: LabelManager, manager: SimpleNamespace) -> np.ndarray | None:
    return convert_logits_on_device(logits, CPU, PLANS, manager, labels, PROPERTIES)


@pytest.mark.parametrize("max_bytes", [1, 2**30])
@pytest.mark.parametrize("kind", MANAGERS)
def test_labels_are_those_of_the_cpu_path(kind: str, max_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_labels, "_MAX_BYTES_PER_SLAB", max_bytes)
    labels = MANAGERS[kind]
    logits = make_logits(labels.num_segmentation_heads)
    expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, PLANS, configuration(), labels, PROPERTIES
    )
    found = on_device(logits, labels, configuration())
    assert found.itemsize == (1 if kind == "labels" else 2)
    segmentation = revert_cropping_and_transposition(found, PLANS, labels, PROPERTIES)
    np.testing.assert_array_equal(segmentation, expected)
    assert segmentation.dtype == expected.dtype
    assert len(np.unique(segmentation)) == labels.num_segmentation_heads + labels.has_regions


class RunnerUp(LabelManager):
    """A user's label manager, which may look at the whole image."""

    def convert_logits_to_segmentation(self, predicted_logits: np.ndarray) -> np.ndarray:
        return predicted_logits.argsort(0)[-2]


def test_what_is_not_the_default_is_left_to_the_cpu_path() -> None:
    logits = make_logits(4)
    assert on_device(logits, MANAGERS["labels"], configuration()) is not None
    cubic = functools.partial(DEFAULT, order=3)
    assert on_device(logits, MANAGERS["labels"], configuration(cubic)) is None
    assert on_device(logits, RunnerUp({"background": 0, "a": 1, "b": 2, "c": 3}, None), configuration()) is None
    assert on_device(logits[:3], MANAGERS["labels"], configuration()) is None  # whose error is then the usual one


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("fake"), RuntimeError("illegal memory access")], ids=repr)
def test_only_a_lack_of_memory_is_left_to_the_cpu_path(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise error

    labels = MANAGERS["labels"]
    monkeypatch.setattr(labels, "convert_logits_to_segmentation", fail)
    if isinstance(error, torch.OutOfMemoryError):
        assert on_device(make_logits(4), labels, configuration()) is None
    else:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            on_device(make_logits(4), labels, configuration())

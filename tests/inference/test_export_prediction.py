"""From logits to segmentations on the grid of the image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunetv2.inference import export_prediction
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
    resample_and_save,
)
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.inference.tiny_models import model_folder

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
PLANS = SimpleNamespace(transpose_forward=[1, 2, 0], transpose_backward=[2, 0, 1])
# The file's image is (Z, Y, X) = (2, 3, 4), in the network's order (3, 4, 2); the crop leaves out one row and column.
PROPERTIES = {
    "spacing": [5.0, 1.0, 2.0],
    "shape_before_cropping": (3, 4, 2),
    "bbox_used_for_cropping": [[1, 3], [0, 3], [0, 2]],
    "shape_after_cropping_and_before_resampling": (2, 3, 2),
}


class Resampling:
    """Repeats each voxel of the network's grid (1, 3, 2) along the first axis, and notes what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __call__(self, logits: np.ndarray, shape: tuple, current: list, new: list) -> np.ndarray:
        self.calls.append((len(logits), shape, current, new))
        return np.repeat(np.asarray(logits), 2, axis=1)


def configuration(spacing: list[float]) -> SimpleNamespace:
    return SimpleNamespace(spacing=spacing, resampling_fn_probabilities=Resampling())


def logits_of(winners: np.ndarray, num_outputs: int) -> np.ndarray:
    return (winners[None] == np.arange(num_outputs).reshape(-1, 1, 1, 1)).astype(np.float32) * 3


WINNERS = np.array([[[0, 1], [2, 0], [1, 2]]])  # (1, 3, 2)


def expected_segmentation() -> np.ndarray:
    whole = np.zeros((3, 4, 2), int)
    whole[1:3, 0:3] = WINNERS
    return np.stack([whole[:, :, 0], whole[:, :, 1]])  # the network's last axis is the file's first


@pytest.mark.parametrize("as_tensor", [False, True])
def test_labels_by_hand(as_tensor: bool) -> None:
    manager = configuration([2.0, 2.0, 5.0])
    logits = logits_of(WINNERS, 3)
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(logits) if as_tensor else logits, PLANS, manager, LABELS, PROPERTIES
    )
    np.testing.assert_array_equal(segmentation, expected_segmentation())
    assert segmentation.dtype == np.uint8
    assert manager.resampling_fn_probabilities.calls == [(3, (2, 3, 2), [2.0, 2.0, 5.0], [1.0, 2.0, 5.0])]


def test_two_dimensional_configuration_keeps_the_spacing_of_the_first_axis() -> None:
    manager = configuration([2.0, 5.0])
    convert_predicted_logits_to_segmentation_with_correct_shape(
        logits_of(WINNERS, 3), PLANS, manager, LABELS, PROPERTIES
    )
    assert manager.resampling_fn_probabilities.calls[0][2:] == ([1.0, 2.0, 5.0], [1.0, 2.0, 5.0])


def test_probabilities_say_background_outside_the_crop() -> None:
    segmentation, scores = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits_of(WINNERS, 3), PLANS, configuration([2.0, 2.0, 5.0]), LABELS, PROPERTIES, return_probabilities=True
    )
    np.testing.assert_array_equal(segmentation, expected_segmentation())
    assert (scores.dtype, scores.shape) == (np.float32, (3, 2, 3, 4))
    np.testing.assert_array_equal(scores.argmax(0), expected_segmentation())
    np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-6)
    assert scores[0, :, 0].min() == 1  # the row that was cropped away
    inside = np.exp(3) / (np.exp(3) + 2)
    assert scores[1, 1, 1, 0] == pytest.approx(inside)


def test_regions_are_painted_in_order() -> None:
    logits = np.full((2, 1, 3, 2), -1.0, np.float32)
    logits[0, 0, :2] = 1  # whole
    logits[1, 0, 1] = 1  # core, which wins where both are
    segmentation, scores = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, PLANS, configuration([2.0, 2.0, 5.0]), REGIONS, PROPERTIES, return_probabilities=True
    )
    assert segmentation[0, 1].tolist() == [1, 2, 0, 0]
    assert scores[:, 0, 0].max() == 0  # outside the crop no region
    without_scores = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, PLANS, configuration([2.0, 2.0, 5.0]), REGIONS, PROPERTIES
    )
    np.testing.assert_array_equal(without_scores, segmentation)


def test_many_classes_in_groups_give_the_same_labels(monkeypatch: pytest.MonkeyPatch, seeded: int) -> None:
    labels = LabelManager({"background": 0, **{f"l{i}": i for i in range(1, 9)}}, None)
    logits = np.random.default_rng(0).integers(0, 4, (9, 1, 3, 2)).astype(np.float16)  # with ties
    at_once = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, PLANS, configuration([2.0, 2.0, 5.0]), labels, PROPERTIES
    )
    monkeypatch.setattr(export_prediction, "MAX_VALUES_AT_A_TIME", 4 * 12)
    manager = configuration([2.0, 2.0, 5.0])
    in_groups = convert_predicted_logits_to_segmentation_with_correct_shape(logits, PLANS, manager, labels, PROPERTIES)
    np.testing.assert_array_equal(in_groups, at_once)
    assert [call[0] for call in manager.resampling_fn_probabilities.calls] == [4, 4, 1]


def test_many_regions_in_groups_give_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LabelManager({"background": 0, **{f"r{i}": list(range(i, 10)) for i in range(1, 10)}}, list(range(1, 10)))
    logits = np.random.default_rng(0).normal(size=(9, 1, 3, 2)).astype(np.float16)
    arguments = PLANS, configuration([2.0, 2.0, 5.0]), labels, PROPERTIES
    at_once = convert_predicted_logits_to_segmentation_with_correct_shape(logits, *arguments)
    monkeypatch.setattr(export_prediction, "MAX_VALUES_AT_A_TIME", 4 * 12)
    in_groups = convert_predicted_logits_to_segmentation_with_correct_shape(logits, *arguments)
    np.testing.assert_array_equal(in_groups, at_once)
    assert [call[0] for call in arguments[1].resampling_fn_probabilities.calls] == [9, 4, 4, 1]
    assert len(np.unique(at_once)) > 3


class RunnerUp(LabelManager):
    """A user's label manager, whose labels depend on all classes."""

    def convert_logits_to_segmentation(self, predicted_logits: np.ndarray) -> np.ndarray:
        return predicted_logits.argsort(0)[-2]


@pytest.mark.parametrize("kind", ["conversion", "scores"])
def test_conversions_that_need_all_classes_get_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "conversion":
        labels = RunnerUp({"background": 0, "a": 1, "b": 2}, None)
    else:
        regions = {"background": 0, "all": [1, 2, 3], "most": [2, 3], "some": 3}
        labels = LabelManager(regions, [1, 2, 3], inference_nonlin=lambda logits: torch.softmax(logits, 0))
    monkeypatch.setattr(export_prediction, "MAX_VALUES_AT_A_TIME", 1)
    manager, num_classes = configuration([2.0, 2.0, 5.0]), labels.num_segmentation_heads
    logits = np.random.default_rng(0).normal(size=(num_classes, 1, 3, 2)).astype(np.float32)
    convert_predicted_logits_to_segmentation_with_correct_shape(logits, PLANS, manager, labels, PROPERTIES)
    assert [call[0] for call in manager.resampling_fn_probabilities.calls] == [num_classes]


def test_more_than_254_labels_need_16_bits() -> None:
    labels = LabelManager({"background": 0, **{f"l{i}": i for i in range(1, 256)}}, None)
    logits = np.zeros((256, 1, 3, 2), np.float32)
    logits[255] = 1
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, PLANS, configuration([2.0, 2.0, 5.0]), labels, PROPERTIES
    )
    assert segmentation.dtype == np.uint16
    assert segmentation.max() == 255


def test_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    seen = []

    def resample(logits: np.ndarray, *args: object) -> np.ndarray:
        seen.append(torch.get_num_threads())
        raise ZeroDivisionError

    manager = SimpleNamespace(spacing=[2.0, 2.0, 5.0], resampling_fn_probabilities=resample)
    with pytest.raises(ZeroDivisionError):
        convert_predicted_logits_to_segmentation_with_correct_shape(
            logits_of(WINNERS, 3), PLANS, manager, LABELS, PROPERTIES, num_threads_torch=3
        )
    assert seen == [3]
    assert torch.get_num_threads() == before


def recorded_plans() -> PlansManager:
    return PlansManager(model_folder("3d_fullres") / "plans.json")


RECORDED_PROPERTIES = {
    "spacing": [3.0, 0.9, 1.2],
    "sitk_stuff": {"spacing": (1.2, 0.9, 3.0), "origin": (0.0, 0.0, 0.0), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)},
    "shape_before_cropping": (6, 4, 5),
    "bbox_used_for_cropping": [[0, 6], [0, 4], [0, 5]],
    "shape_after_cropping_and_before_resampling": (6, 4, 5),
}


def test_segmentation_is_written_last_and_never_beside_scores_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its presence says that the case is complete, so nothing may be missing then."""
    plans = recorded_plans()
    dataset_json = {"labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    logits = np.random.default_rng(0).normal(size=(2, 6, 4, 5)).astype(np.float16)
    present: list[str] = []
    write = plans.image_reader_writer_class.write_seg

    def note_and_write(self: object, *args: object) -> None:
        present[:] = sorted(path.name for path in tmp_path.iterdir())
        write(self, *args)

    monkeypatch.setattr(plans.image_reader_writer_class, "write_seg", note_and_write)
    planned, target = plans.get_configuration("3d_fullres"), str(tmp_path / "x")
    export_prediction_from_logits(logits, RECORDED_PROPERTIES, planned, plans, dataset_json, target, True)
    assert present == ["x.npz", "x.pkl"]
    assert (tmp_path / "x.nii.gz").is_file()
    export_prediction_from_logits(logits, RECORDED_PROPERTIES, planned, plans, dataset_json, target)
    assert present == ["x.nii.gz"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("dataset_class", [None, nnUNetDatasetBlosc2, nnUNetDatasetNumpy])
def test_next_stage_gets_labels_on_its_grid(dataset_class: type | None, tmp_path: Path) -> None:
    plans = recorded_plans()
    winners = np.zeros((6, 4, 5), int)
    winners[:, :, 2:] = 1
    dataset_json = {"labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    resample_and_save(
        logits_of(winners, 2),
        (12, 8, 10),
        str(tmp_path / "case"),
        plans,
        plans.get_configuration("3d_fullres"),
        RECORDED_PROPERTIES,
        dataset_json,
        dataset_class=dataset_class,
    )
    if dataset_class is nnUNetDatasetNumpy:
        with np.load(tmp_path / "case.npz", allow_pickle=False) as archive:
            stored = archive["seg"]
    else:
        import blosc2

        stored = blosc2.open(str(tmp_path / "case.b2nd"), mode="r")[:]
    expected = np.zeros((12, 8, 10), int)
    expected[:, :, 4:] = 1
    np.testing.assert_array_equal(stored.squeeze(), expected)
    assert stored.dtype == np.uint8


def test_the_next_stage_of_a_two_dimensional_configuration_has_the_spacing_of_the_first_axis(tmp_path: Path) -> None:
    manager = configuration([2.0, 7.0])
    plans = SimpleNamespace(**vars(PLANS), get_label_manager=lambda _: LABELS)
    resample_and_save(
        logits_of(WINNERS, 3),
        (2, 3, 2),
        str(tmp_path / "case"),
        plans,
        manager,
        PROPERTIES,
        {},
        dataset_class=nnUNetDatasetNumpy,
    )
    assert manager.resampling_fn_probabilities.calls == [(3, (2, 3, 2), [1.0, 2.0, 7.0], [1.0, 2.0, 7.0])]

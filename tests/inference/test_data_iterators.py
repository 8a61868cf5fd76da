"""Iterating over preprocessed cases."""

from __future__ import annotations

import operator
import queue
import threading

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.inference.case_preprocessing import CasePreprocessor
from nnunetv2.inference.data_iterators import (
    WORTH_A_PROCESS_BYTES,
    FailedCase,
    PreprocessAdapter,
    PreprocessAdapterFromNpy,
    PreprocessedCases,
    num_useful_processes,
    preprocess_fromfiles_save_to_queue,
    preprocess_fromnpy_save_to_queue,
    preprocessing_iterator_fromfiles,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.inference.tiny_models import IMAGES, PREVIOUS_STAGE, read_image, tiny_predictor

FILES = [str(IMAGES / "case_0000.nii.gz")]
PREVIOUS = str(PREVIOUS_STAGE / "case.nii.gz")


def managers(predictor: nnUNetPredictor) -> tuple:
    return predictor.plans_manager, predictor.dataset_json, predictor.configuration_manager


def item_of_ones(value: int, ofile: str) -> dict:
    if value == 2:
        raise DataError("two is bad")
    return {"data": np.full((1, 2, 2, 2), value, np.float32), "data_properties": {}, "ofile": ofile}


def test_failing_case_keeps_its_place() -> None:
    cases = PreprocessedCases(item_of_ones, [(1, "a"), (2, "b"), (3, "c")], 0)
    assert operator.length_hint(cases) == 3
    items = list(cases)
    assert operator.length_hint(cases) == 0
    assert [item["ofile"] for item in items] == ["a", "b", "c"]
    assert items[0]["data"].shape == (1, 2, 2, 2)
    assert isinstance(items[1], FailedCase)
    with pytest.raises(DataError, match="two is bad"):
        items[1]["data"]


def test_cases_are_preprocessed_when_they_are_asked_for() -> None:
    begun = []

    def note(value: int, ofile: str) -> dict:
        begun.append(value)
        return item_of_ones(value, ofile)

    cases = PreprocessedCases(note, [(1, "a"), (3, "b"), (4, "c")], 0)
    next(cases)
    assert begun == [1]
    cases.close()
    assert list(cases) == []


def test_one_case_is_preprocessed_ahead_while_a_gpu_computes() -> None:
    begun = {value: threading.Event() for value in (1, 2, 3, 4)}

    def note(value: int, ofile: str) -> dict:
        begun[value].set()
        return item_of_ones(value, ofile)

    jobs = [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    cases = PreprocessedCases(note, jobs, 0, ahead=True)
    assert next(cases)["ofile"] == "a"
    assert begun[2].wait(60)
    assert not begun[3].is_set()
    failed = next(cases)
    assert isinstance(failed, FailedCase)
    assert begun[3].wait(60)
    cases.close()
    assert not begun[4].is_set()
    assert [item["ofile"] for item in PreprocessedCases(note, jobs, 0, ahead=True)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("requested", "num_cases", "num_bytes", "useful"),
    [(3, 1, 10**10, 0), (3, 50, 10**6, 0), (0, 50, 10**10, 0), (1, 50, WORTH_A_PROCESS_BYTES, 1)],
)
def test_processes_only_where_they_pay(requested: int, num_cases: int, num_bytes: int, useful: int) -> None:
    assert num_useful_processes(requested, num_cases, num_bytes) == useful


def test_never_more_processes_than_cases() -> None:
    assert num_useful_processes(100, 2, 10**10) == 2


def test_cascade_gets_one_channel_per_label_on_top() -> None:
    predictor = tiny_predictor("3d_cascade_fullres")
    item = next(preprocessing_iterator_fromfiles([FILES], [PREVIOUS], None, *managers(predictor), 0))
    image, one, two = item["data"]
    assert item["data"].dtype == torch.float32
    for mask in (one, two):
        assert set(mask.unique().tolist()) == {0, 1}
    assert (one * two).sum() == 0
    assert image.unique().numel() > 100


def test_all_adapters_give_the_item_of_the_iterator() -> None:
    predictor = tiny_predictor("3d_cascade_fullres")
    plans, dataset_json, configuration = managers(predictor)
    reader = plans.image_reader_writer_class()
    image, properties = read_image(predictor)
    previous, _ = reader.read_seg(PREVIOUS)
    reference = next(preprocessing_iterator_fromfiles([FILES], [PREVIOUS], ["x"], *managers(predictor), 0))
    preprocessor = configuration.preprocessor_class(verbose=False)
    from_files = PreprocessAdapter([FILES], [PREVIOUS], preprocessor, ["x"], plans, dataset_json, configuration)
    from_npy = PreprocessAdapterFromNpy([image], [previous], [properties], ["x"], *managers(predictor))
    for adapter in (from_files, from_npy):
        items = list(adapter)
        assert len(items) == 1
        assert items[0]["ofile"] == "x"
        torch.testing.assert_close(items[0]["data"], reference["data"])

    target, done, abort = queue.Queue(), threading.Event(), threading.Event()
    preprocess_fromfiles_save_to_queue([FILES], [PREVIOUS], ["x"], *managers(predictor), target, done, abort)
    preprocess_fromnpy_save_to_queue(
        [image], [previous], [properties], ["x"], *managers(predictor), target, threading.Event(), abort
    )
    for item in (target.get_nowait(), target.get_nowait()):
        torch.testing.assert_close(item["data"], reference["data"])
    assert done.is_set()
    assert not abort.is_set()


def test_queue_is_aborted_by_an_error() -> None:
    predictor = tiny_predictor()
    target, done, abort = queue.Queue(), threading.Event(), threading.Event()
    with pytest.raises(DataError, match="missing"):
        preprocess_fromfiles_save_to_queue(
            [["missing_0000.nii.gz"]], None, None, *managers(predictor), target, done, abort
        )
    assert abort.is_set()
    assert not done.is_set()


def test_missing_previous_stage_is_named() -> None:
    preprocessor = CasePreprocessor(*managers(tiny_predictor("3d_cascade_fullres")))
    with pytest.raises(DataError, match="There is no nowhere.nii.gz; segment the image with 3d_lowres first"):
        preprocessor.from_files(FILES, "nowhere.nii.gz", None)


def test_an_image_in_place_of_the_previous_stage_is_refused() -> None:
    preprocessor = CasePreprocessor(*managers(tiny_predictor("3d_cascade_fullres")))
    with pytest.raises(DataError, match=r"case_0000.nii.gz is no segmentation by 3d_lowres: .* its labels \(0, 1, "):
        preprocessor.from_files(FILES, FILES[0], None)

"""Steps are scored by the voxels that they change, as if the whole segmentation were counted again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.evaluation.segmentation_format import SegmentationFormat
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from nnunetv2.postprocessing.step_choice import ScoredCases, Step, apply_steps, choose_steps, metrics_of_trials
from tests.recorded.crossval_cases import SHAPE, write_segmentation

IGNORED = 4


def step(labels: int | tuple[int, ...] | list[int]) -> Step:
    return Step(remove_all_but_largest_component_from_segmentation, {"labels_or_regions": labels})


def stored(regions: list, ignore_label: int | None = IGNORED) -> SegmentationFormat:
    has_regions = any(isinstance(region, tuple) for region in regions)
    names = {(1, 2): "whole", 2: "core"}
    return SegmentationFormat(SimpleITKIO(), ".nii.gz", [1, 2, 3], regions, has_regions, ignore_label, names)


@pytest.mark.parametrize("regions", [[1, 2, 3], [(1, 2, 3), (2, 3), 3]])
@pytest.mark.parametrize("ignore_label", [IGNORED, None])
def test_trials_are_scored_as_if_everything_was_counted_again(regions, ignore_label, tmp_path):
    generator = np.random.default_rng(1)
    truth = generator.choice(5, SHAPE, p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
    found = generator.choice(4, SHAPE, p=[0.8, 0.1, 0.06, 0.04]).astype(np.uint8)
    files = [tmp_path / name for name in ("reference.nii.gz", "prediction.nii.gz", "changed.nii.gz")]
    write_segmentation(truth, files[0])
    write_segmentation(found, files[1])
    taken, candidates = [step([1, 2, 3])], [step(region) for region in regions]
    trials = metrics_of_trials(str(files[1]), str(files[0]), stored(regions, ignore_label), taken, candidates)
    for steps, trial in zip([taken, *([*taken, candidate] for candidate in candidates)], trials, strict=True):
        write_segmentation(apply_steps(found, steps), files[2])
        expected = compute_metrics(str(files[0]), str(files[2]), SimpleITKIO(), regions, ignore_label)["metrics"]
        assert trial == expected
    assert trials[0] != trials[-1]


def choose(folder: Path, truth: list, found: list, regions: list) -> list[dict]:
    """Keywords of the steps chosen for one row of voxels."""
    for name, row in (("reference", truth), ("prediction", found)):
        write_segmentation(np.array([[row]], np.uint8), folder / name / "case.nii.gz")
    cases = ScoredCases(
        ["case.nii.gz"], str(folder / "prediction"), str(folder / "reference"), stored(regions, None), 1
    )
    steps, _ = choose_steps(cases, remove_all_but_largest_component_from_segmentation)
    return [step.kwargs["labels_or_regions"] for step in steps]


def test_the_whole_foreground_is_left_alone_if_one_label_gets_worse(tmp_path):
    truth = [1, 1, 1, 1, 0, 2, 0, 0, 0]
    assert choose(tmp_path / "worse", truth, [1, 1, 1, 1, 0, 2, 0, 1, 0], [1, 2]) == [1]
    assert choose(tmp_path / "better", [1, 1, 1, 1, 2, 0, 0, 0, 0], [1, 1, 1, 1, 2, 0, 2, 1, 0], [1, 2]) == [[1, 2, 3]]
    assert choose(tmp_path / "perfect", truth, truth, [1, 2]) == []


def test_regions_are_tried_on_what_the_steps_before_have_left(tmp_path, caplog):
    caplog.set_level("INFO")
    truth = [0, 1, 2, 2, 1, 1, 1, 0, 0, 0, 0]
    found = [0, 1, 2, 2, 1, 1, 2, 0, 1, 2, 0]
    assert choose(tmp_path, truth, found, [(1, 2), 2]) == [[1, 2, 3], 2]
    whole, region, core = caplog.messages
    assert whole.startswith("Keeping only the largest component of the foreground as a whole: applied (Dice 0.")
    assert region == "Keeping only the largest component of whole: not applied (no change of Dice)"
    assert core.startswith(
        "Keeping only the largest component of core: applied (Dice 0.80000, which it changes by +0.2)"
    )
    assert choose(tmp_path / "one", truth, found, [(1, 2)]) == [[1, 2, 3]]

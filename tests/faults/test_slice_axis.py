"""Images of a single slice: the axis of length one is the slice axis, whichever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    plan_and_preprocess_entry,
    plan_experiment_entry,
)
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2
from nnunetv2.run.run_training import run_training_entry
from tests.faults import volumes

pytestmark = pytest.mark.usefixtures("few_draws")

PLAN = ["-np", "1", "-npfp", "1", "--no_pbar", "-c", "2d"]
OF_THE_ORIENTATION = ("dataset_name", "transpose_forward", "transpose_backward")


def write_orientation(root: Path, number: int, axis: int, spacing: tuple[float, float]) -> Path:
    """Writes images of 60 x 50 pixels whose slice axis is the given axis of the file."""
    folder = root / f"Dataset{number:03d}_Axis{axis}"
    volumes.write_images(folder, (60, 50), spacing, slice_axis=axis)
    return folder


def fingerprint_of(preprocessed: Path, shapes: list[list[int]], spacings: list[list[float]]) -> None:
    path = preprocessed / "dataset_fingerprint.json"
    content = json.loads(path.read_text()) | {"shapes_after_crop": shapes, "spacings": spacings}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])  # the second: the coarsest axis lies in the plane
def test_equal_plans_and_cases_for_all_orientations(
    nnunet_folders: dict[str, Path], run: Callable, spacing: tuple[float, float]
) -> None:
    found = []
    for axis in range(3):
        name = write_orientation(nnunet_folders["nnUNet_raw"], axis + 1, axis, spacing).name
        assert run(plan_and_preprocess_entry, "-d", str(axis + 1), *PLAN)[0] == 0
        folder = nnunet_folders["nnUNet_preprocessed"] / name
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        forward = plans["transpose_forward"]
        assert forward[0] == 2 - axis  # arrays have the axes of the file in reverse
        stored = nnUNetDatasetBlosc2(str(folder / "nnUNetPlans_2d"))
        assert stored.identifiers == volumes.CASES
        image, label, _, _ = stored.load_case("case_b")
        found.append(
            (
                {key: value for key, value in plans.items() if key not in OF_THE_ORIENTATION},
                np.sort(image[:].ravel()),  # the orientations of one image are not mirrored in the same way
                np.unique(label[:], return_counts=True)[1].tolist(),
            )
        )
        assert list(plans["configurations"]) == ["2d"]
        assert image.shape[1] == 1
    for other in found[1:]:
        assert other[0] == found[0][0]
        np.testing.assert_array_equal(other[1], found[0][1])
        assert other[2] == found[0][2]
    assert found[0][0]["configurations"]["2d"]["patch_size"] == [56, 64]


@pytest.mark.parametrize("planner", ["ExperimentPlanner", "nnUNetPlannerResEncM", "nnUNetPlannerResEncL_torchres"])
@pytest.mark.parametrize(
    ("shapes", "spacings"),
    [
        ([[1500, 2000, 1]] * 2, [[1.0, 1.0, 1.0]] * 2),  # used to end in a division by zero
        ([[1500, 2000, 1]] * 2, [[1.0, 1.0, 5.0]] * 2),
        ([[1500, 2000, 1]] * 2, [[1.0, 2.0, 1.0]] * 2),
        ([[1500, 2000, 1], [1400, 2000, 1]], [[1.0, 1.0, 0.1], [1.0, 1.0, 9.0]]),  # slices of different thickness
    ],
)
def test_every_planner_finds_the_slices(
    preprocessed_volumes: Path, run: Callable, planner: str, shapes: list[list[int]], spacings: list[list[float]]
) -> None:
    plans = []
    for axes in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
        turned = [[[entry[axis] for axis in axes] for entry in entries] for entries in (shapes, spacings)]
        fingerprint_of(preprocessed_volumes, *turned)
        words = ["-pl", planner, "-overwrite_plans_name", f"plans{axes.index(2)}"]
        assert run(plan_experiment_entry, "-d", volumes.NUMBER, *words)[0] == 0
        content = json.loads((preprocessed_volumes / f"{words[-1]}.json").read_text())
        assert content["transpose_forward"][0] == axes.index(2)
        (configuration,) = content["configurations"].values()
        plans.append(configuration | {"data_identifier": ""})
    assert plans[0] == plans[1] == plans[2]
    assert min(plans[0]["patch_size"]) >= 256


@pytest.mark.parametrize("thin", [2, 3, 5])
def test_few_slices_of_many_pixels_can_be_planned(preprocessed_volumes: Path, run: Callable, thin: int) -> None:
    for axis in range(3):  # the patch used to shrink to no slice at all
        shape = [1500, 2000]
        shape.insert(axis, thin)
        fingerprint_of(preprocessed_volumes, [shape] * 2, [[1.0, 1.0, 1.0]] * 2)
        assert run(plan_experiment_entry, "-d", volumes.NUMBER)[0] == 0
        configurations = json.loads((preprocessed_volumes / "nnUNetPlans.json").read_text())["configurations"]
        assert all(min(plan["patch_size"]) > 0 for plan in configurations.values() if "patch_size" in plan)


def test_slices_of_another_axis_can_be_trained(
    nnunet_folders: dict[str, Path], run: Callable, short_training: Callable
) -> None:
    short_training(epochs=1, iterations=1)
    name = write_orientation(nnunet_folders["nnUNet_raw"], 1, 1, (1.0, 1.0)).name
    assert run(plan_and_preprocess_entry, "-d", "1", *PLAN)[0] == 0
    assert run(run_training_entry, "1", "2d", "0", "-device", "cpu")[0] == 0
    predicted = list(nnunet_folders["nnUNet_results"].glob(f"{name}/*/fold_0/validation/*.nii.gz"))
    assert [volumes.shape_of(path) for path in predicted] == [(60, 1, 50)] * 2

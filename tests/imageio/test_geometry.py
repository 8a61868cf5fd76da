from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.imageio.geometry import mismatch_is_allowed, placement_differences, spacings_agree


def sitk_properties(origin=(0.0, 0.0, 0.0), direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)) -> dict:
    return {"spacing": (1.0, 1.0, 1.0), "sitk_stuff": {"origin": origin, "direction": direction}}


def nibabel_properties(affine: np.ndarray) -> dict:
    return {"spacing": (1.0, 1.0, 1.0), "nibabel_stuff": {"original_affine": affine}}


def test_spacings_agree_up_to_rounding_of_headers():
    assert spacings_agree({"spacing": (3, 0.8, 0.8)}, {"spacing": (3, np.float32(0.8), 0.8)})
    assert not spacings_agree({"spacing": (3, 0.8, 0.8)}, {"spacing": (3, 0.801, 0.8)})


def test_equal_placement_has_no_differences():
    rounded = sitk_properties(origin=(1e-4, 0.0, 0.0))
    assert placement_differences(sitk_properties(), rounded) == []


def test_other_origin_is_named_with_both_values():
    (difference,) = placement_differences(sitk_properties(), sitk_properties(origin=(0.0, 2.5, 0.0)))
    assert difference == "origin (0, 0, 0) mm against (0, 2.5, 0) mm"


def test_rotation_above_the_tolerance_is_found():
    angle = 3e-4  # rad
    rotated = np.eye(3)
    rotated[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    differences = placement_differences(sitk_properties(), sitk_properties(direction=tuple(rotated.ravel())))
    assert len(differences) == 1 and differences[0].startswith("direction ")


@pytest.mark.parametrize(("shift", "flip", "found"), [(0, 1, []), (2, 1, ["origin"]), (0, -1, ["direction"])])
def test_affines_are_compared_by_origin_and_direction(shift, flip, found):
    affine = np.diag([0.8, 0.8, 3.0, 1.0])
    other = affine.copy()
    other[0, 3] += shift
    other[1, 1] *= flip
    differences = placement_differences(nibabel_properties(affine), nibabel_properties(other))
    assert [difference.split()[0] for difference in differences] == found


def test_formats_without_placement_are_not_compared():
    assert placement_differences({"spacing": (999, 1, 1)}, sitk_properties()) == []


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("0", False), ("", False)])
def test_mismatch_can_be_allowed_by_the_environment(monkeypatch, value, allowed):
    monkeypatch.setenv("nnUNet_allow_geometry_mismatch", value)
    assert mismatch_is_allowed() is allowed

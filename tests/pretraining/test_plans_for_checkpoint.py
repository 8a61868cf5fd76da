"""Plans for a checkpoint, key by key as upstream makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.pretraining.nnssl_checkpoint import NNSSLCheckpoint, read_nnssl_checkpoint
from nnunetv2.pretraining.plans_for_checkpoint import (
    BASE_PLANS,
    folder_name,
    new_spacing_from_mode,
    plans_like_checkpoint,
    plans_with_weights,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

LIKE = [  # dataset, checkpoint, adaptation mode, spacing of `fixed`, name of the plans
    (902, "cnn", "like_pretrained", None, "ptPlans__cnn____Spacing__1.00_1.00_1.00___Norm__Z"),
    (903, "cnn", "like_pretrained", None, "ptPlans__cnn____Spacing__1.00_1.00_1.00___Norm__Z_Z"),
    (902, "primus", "like_pretrained", None, "ptPlans__primus____Spacing__1.00_1.00_1.00___Norm__Z"),
    (903, "primus", "like_pretrained", None, "ptPlans__primus____Spacing__1.00_1.00_1.00___Norm__Z_Z"),
    (902, "cnn", "default_nnunet", None, "ptPlans__cnn____Spacing__4.00_0.80_0.80___Norm__Z"),
    (902, "cnn", "fixed", [2, 1, 1.5], "ptPlans__cnn____Spacing__2.00_1.00_1.50___Norm__Z"),
    (902, "cnn", "no_resample", None, "ptPlans__cnn____Spacing__None_None_None___Norm__Z"),
]
DYNAMIC = [
    (902, "nnUNetPlans", "plainbase"),
    (902, "nnUNetResEncUNetLPlans", "full"),
    (902, "tinyDeepPlans", "deep"),
    (902, "tinyShallowPlans", "shallow"),
    (903, "tinyDeepPlans", "deep"),
]


def recorded_plans(oracle_recorded: Path, name: str) -> dict[str, Any]:
    return json.loads((oracle_recorded / "nnssl" / "plans" / f"{name}.json").read_text())


def checkpoint_of(oracle_recorded: Path, name: str) -> NNSSLCheckpoint:
    return read_nnssl_checkpoint(oracle_recorded / "nnssl" / "checkpoints" / f"{name}.pth")


@pytest.mark.oracle
@pytest.mark.parametrize(("dataset", "name", "mode", "fixed", "plans_name"), LIKE)
def test_plans_like_a_checkpoint_are_upstreams(
    oracle_recorded: Path, dataset: int, name: str, mode: str, fixed: list[float] | None, plans_name: str
) -> None:
    base, checkpoint = recorded_plans(oracle_recorded, f"{dataset}__nnUNetPlans"), checkpoint_of(oracle_recorded, name)
    configuration = PlansManager(base).get_configuration("3d_fullres").configuration
    spacing = new_spacing_from_mode(mode, configuration["spacing"], checkpoint.plan.configuration["spacing"], fixed)
    path = f"nnssl_ckpt/{name}.pth"
    found = plans_like_checkpoint(base, configuration, checkpoint, path=path, name=name, spacing=spacing)
    expected = recorded_plans(oracle_recorded, f"{dataset}__{plans_name}")
    assert found["plans_name"] == plans_name
    assert json.loads(json.dumps(found)) == expected


@pytest.mark.oracle
@pytest.mark.parametrize(("dataset", "base_name", "name"), DYNAMIC)
def test_plans_that_keep_the_network_are_upstreams(
    oracle_recorded: Path, dataset: int, base_name: str, name: str
) -> None:
    base = recorded_plans(oracle_recorded, f"{dataset}__{base_name}")
    configuration = PlansManager(base).get_configuration("3d_fullres").configuration
    checkpoint = checkpoint_of(oracle_recorded, "cnn")
    found = plans_with_weights(base, configuration, checkpoint, path="nnssl_ckpt/cnn.pth", name=name)
    assert json.loads(json.dumps(found)) == recorded_plans(oracle_recorded, f"{dataset}__ptPlans_dynamic__{name}")


def test_a_pretraining_without_spacing_leaves_nnunets() -> None:
    for unknown in (None, [None, None, None]):
        assert new_spacing_from_mode("like_pretrained", [4, 0.8, 0.8], unknown) == [4.0, 0.8, 0.8]
    assert new_spacing_from_mode("no_resample", [4, 0.8, 0.8], [1, 1, 1]) == [None, None, None]


@pytest.mark.parametrize(
    ("mode", "fixed", "message"),
    [
        ("fixed", None, "three numbers above 0, .* and nothing was given"),
        ("fixed", [2, 1], "and 2 1 was given"),
        ("fixed", [2, 1, 0], "and 2 1 0 was given"),
        ("like_mine", None, "no adaptation mode like_mine; choose one of fixed, default_nnunet"),
    ],
)
def test_modes_without_a_spacing_are_refused(mode: str, fixed: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        new_spacing_from_mode(mode, [1, 1, 1], [1, 1, 1], fixed)
    assert isinstance(caught.value, UsageError)


def test_names() -> None:
    assert folder_name([1.0, 1.0, 1.0], 2) == "Spacing__1.00_1.00_1.00___Norm__Z_Z"
    assert folder_name([None, None, None], 1) == "Spacing__None_None_None___Norm__Z"
    assert BASE_PLANS == (
        "nnUNetPlans",
        "nnUNetResEncUNetPlans",
        "nnUNetResEncUNetMPlans",
        "nnUNetResEncUNetLPlans",
        "nnUNetResEncUNetXLPlans",
    )

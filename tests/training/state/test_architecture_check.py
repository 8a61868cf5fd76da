"""A model folder keeps one architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.state.architecture_check import architecture_differences, require_same_architecture
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.training.tiny_dataset import tiny_plans


def _wider_plans() -> dict:
    plans = tiny_plans()
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    return plans


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    (tmp_path / "plans.json").write_text(json.dumps(tiny_plans()))
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_best.pth").touch()
    return tmp_path


def test_other_architecture_is_refused_with_the_difference(trained: Path) -> None:
    wanted = PlansManager(_wider_plans()).get_configuration("2d")
    with pytest.raises(UsageError, match=r"arch_kwargs\.features_per_stage: \[4, 8, 8\] there, \[4, 8, 16\] now"):
        require_same_architecture(str(trained), "2d", wanted)


def test_same_architecture_is_accepted(trained: Path) -> None:
    require_same_architecture(str(trained), "2d", PlansManager(tiny_plans()).get_configuration("2d"))


def test_without_a_checkpoint_the_architecture_may_change(trained: Path) -> None:
    (trained / "fold_1" / "checkpoint_best.pth").unlink()
    require_same_architecture(str(trained), "2d", PlansManager(_wider_plans()).get_configuration("2d"))


def test_differences_see_tuples_as_lists_and_name_what_is_absent() -> None:
    assert architecture_differences({"a": (1, 2), "b": {}}, {"a": [1, 2], "b": {}}) == []
    assert architecture_differences({"k": {"x": 1}}, {"k": {"y": 2}}) == [
        "k.x: 1 there, absent now",
        "k.y: absent there, 2 now",
    ]


def test_folds_may_differ_in_what_only_training_uses():
    kwargs = {"hidden_dim": 64, "gradient_checkpointing": True, "lora": {"r": 8, "lora_dropout": 0.1}}
    other = {"hidden_dim": 64, "gradient_checkpointing": False, "lora": {"r": 4, "lora_dropout": 0.0}}
    differences = architecture_differences({"arch_kwargs": kwargs}, {"arch_kwargs": other})
    assert differences == ["arch_kwargs.lora.r: 8 there, 4 now"]


def test_another_head_is_one_difference():
    def section(head: str, **settings: object) -> dict[str, object]:
        return {
            "network_class_name": "N",
            "arch_kwargs": {"head": {"name": head, "settings": settings}, "tuning": "full"},
        }

    there, now = section("dpt", fusion_hidden_size=8), section("linear", dropout=0.5)
    assert architecture_differences(there, now) == ["arch_kwargs.head.name: dpt there, linear now"]

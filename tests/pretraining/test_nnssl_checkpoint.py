"""Reading checkpoints of nnssl: what they say, and files that are none."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.pretraining.nnssl_checkpoint import read_nnssl_checkpoint

CONTENT: dict[str, Any] = {
    "network_weights": {"encoder.stem.weight": torch.ones(2, 1, 3, 3, 3), "epoch": 7},
    "nnssl_adaptation_plan": {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None, "arch_kwargs_requiring_import": None},
        "pretrain_plan": {"configurations": {"onemmiso": {"patch_size": [48, 40, 32], "spacing": [1, 1, 1]}}},
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [32, 40, 48],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem"],
        "key_to_lpe": None,
    },
    "optimizer_state": None,
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    return path


def test_the_plan_and_the_weights_are_read(tmp_path: Path) -> None:
    checkpoint = read_nnssl_checkpoint(written(tmp_path, CONTENT))
    plan = checkpoint.plan
    assert list(checkpoint.weights) == ["encoder.stem.weight"]
    assert (plan.architecture, plan.architecture_arguments, plan.arguments_to_import) == ("ResEncL", None, ())
    assert (plan.key_to_encoder, plan.key_to_stem, plan.keys_to_in_proj) == (
        "encoder.stages",
        "encoder.stem",
        ("encoder.stem",),
    )
    assert (plan.patch_size, plan.recommended_patch_size) == ((48, 40, 32), (32, 40, 48))
    assert plan.configuration["spacing"] == [1, 1, 1]
    assert checkpoint.citations == ()


def test_a_patch_size_of_its_own_precedes_that_of_the_configuration(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["nnssl_adaptation_plan"]["pretrain_patch_size"] = [64, 64, 16]
    assert read_nnssl_checkpoint(written(tmp_path, content)).plan.patch_size == (64, 64, 16)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "architecture"), [("cnn", "ResidualEncoderUNet"), ("primus", "PrimusX")])
def test_checkpoints_of_nnssl_are_read(oracle_recorded: Path, name: str, architecture: str) -> None:
    checkpoint = read_nnssl_checkpoint(oracle_recorded / "nnssl" / "checkpoints" / f"{name}.pth")
    assert checkpoint.plan.architecture == architecture
    assert f"{checkpoint.plan.keys_to_in_proj[0]}.weight" in checkpoint.weights


@pytest.mark.parametrize("key", ["network_weights", "nnssl_adaptation_plan"])
def test_other_checkpoints_are_refused(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in CONTENT.items() if name != key}
    with pytest.raises(DataError, match=f"checkpoint.pth is no checkpoint of nnssl: it has no {key}, the "):
        read_nnssl_checkpoint(written(tmp_path, content))


@pytest.mark.parametrize("key", sorted(CONTENT["nnssl_adaptation_plan"]))
def test_an_incomplete_plan_is_refused(tmp_path: Path, key: str) -> None:
    content = copy.deepcopy(CONTENT)
    del content["nnssl_adaptation_plan"][key]
    with pytest.raises(DataError, match=f"adaptation plan in .* is incomplete: it has no '{key}'"):
        read_nnssl_checkpoint(written(tmp_path, content))


@pytest.mark.parametrize("size", [None, [32, 32], [32, 32, 0], "large"])
def test_a_patch_that_is_none_is_refused(tmp_path: Path, size: Any) -> None:
    content = copy.deepcopy(CONTENT)
    content["nnssl_adaptation_plan"]["pretrain_plan"]["configurations"]["onemmiso"]["patch_size"] = size
    with pytest.raises(DataError, match="is incomplete"):
        read_nnssl_checkpoint(written(tmp_path, content))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, CONTENT)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="damaged"):
        read_nnssl_checkpoint(path)


class Code:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("made_by_a_checkpoint",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="was not opened"):
        read_nnssl_checkpoint(written(tmp_path, {**CONTENT, "trainer": Code()}))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]

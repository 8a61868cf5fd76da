"""Reading model folders, good and bad."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dinov3.utils.atomic_files import read_json, write_json
from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import DataError, UsageError
from nnunetv2.inference import model_loading
from nnunetv2.inference.model_files import available_folds
from nnunetv2.inference.model_loading import load_trained_model
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.inference.tiny_models import model_folder

FINAL = "checkpoint_final.pth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model with two folds that may be damaged."""
    return Path(shutil.copytree(model_folder("3d_fullres"), tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"))


def edit_checkpoint(folder: Path, **changes: Any) -> None:
    path = folder / "fold_0" / FINAL
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save({key: value for key, value in content.items() if value is not None}, path)


def test_model_has_the_weights_of_each_fold_and_the_network_those_of_the_first() -> None:
    model = load_trained_model(model_folder("3d_fullres"), (1, 0), FINAL)
    stored = torch.load(model_folder("3d_fullres") / "fold_1" / FINAL, weights_only=True)["network_weights"]
    assert model.trainer_name == "nnUNetTrainer"
    assert model.mirroring_axes == (0, 1, 2)
    assert len(model.parameters) == 2
    for name, weight in stored.items():
        assert torch.equal(model.parameters[0][name], weight)
        assert torch.equal(model.network.state_dict()[name], weight)
    assert not torch.equal(
        model.parameters[0]["decoder.seg_layers.0.weight"], model.parameters[1]["decoder.seg_layers.0.weight"]
    )


def test_network_returns_one_tensor_of_full_resolution() -> None:
    network = load_trained_model(model_folder("3d_fullres"), 0, FINAL).network
    assert network(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_available_folds_are_numbers_with_the_checkpoint(folder: Path) -> None:
    for name in ("fold_all", "fold_10", "fold_x"):
        shutil.copytree(folder / "fold_0", folder / name)
    (folder / "fold_4").mkdir()
    assert available_folds(folder, FINAL) == [0, 1, 10]
    assert nnUNetPredictor.auto_detect_available_folds(str(folder), FINAL) == [0, 1, 10]


@pytest.mark.parametrize("folds", ["all", ("all",), ["0", "all"]])
def test_fold_all_by_name(folds: Any, folder: Path) -> None:
    shutil.copytree(folder / "fold_1", folder / "fold_all")
    model = load_trained_model(folder, folds, FINAL)
    assert len(model.parameters) == (2 if len(folds) == 2 else 1)


def test_missing_fold_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"fold_2/checkpoint_final.pth; the model has fold 0 \(checkpoint_final.pth\), "
    ):
        load_trained_model(folder, (0, 1, 2), FINAL)


def test_missing_checkpoint_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"fold 0 \(checkpoint_final.pth\).*choose with -f and -chk"):
        load_trained_model(folder, 0, "checkpoint_best.pth")
    with pytest.raises(UsageError, match="No fold of .* has a checkpoint_best.pth"):
        load_trained_model(folder, None, "checkpoint_best.pth")


def test_fold_that_is_no_number(folder: Path) -> None:
    with pytest.raises(UsageError, match="'../x' is neither a number nor all"):
        load_trained_model(folder, "../x", FINAL)


def test_missing_model_names_its_neighbours(folder: Path) -> None:
    with pytest.raises(UsageError, match="no model folder .*__2d; .* has nnUNetTrainer__nnUNetPlans__3d_fullres"):
        load_trained_model(folder.with_name("nnUNetTrainer__nnUNetPlans__2d"), 0, FINAL)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_incomplete_model_folder(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"it has no {name}"):
        load_trained_model(folder, 0, FINAL)


def test_truncated_checkpoint(folder: Path) -> None:
    path = folder / "fold_0" / FINAL
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="fold_0/checkpoint_final.pth"):
        load_trained_model(folder, 0, FINAL)


def test_file_that_is_no_checkpoint_of_nnunet(folder: Path) -> None:
    edit_checkpoint(folder, trainer_name=None)
    with pytest.raises(DataError, match="it has no trainer_name"):
        load_trained_model(folder, 0, FINAL)


def test_weights_that_do_not_fit_the_plans(folder: Path) -> None:
    plans = read_json(folder / "plans.json")
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [2, 6]
    write_json(plans, folder / "plans.json")
    with pytest.raises(DataError, match="fold_0/checkpoint_final.pth does not fit .*size mismatch"):
        load_trained_model(folder, 0, FINAL)


def test_unknown_trainer(folder: Path) -> None:
    edit_checkpoint(folder, trainer_name="nnUNetTrainr")
    with pytest.raises(UsageError, match="nnUNetTrainr.*did you mean"):
        load_trained_model(folder, 0, FINAL)


def test_model_without_mirroring(folder: Path) -> None:
    edit_checkpoint(folder, inference_allowed_mirroring_axes=None)
    assert load_trained_model(folder, 0, FINAL).mirroring_axes is None


def test_trainer_with_the_older_signature_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    class OldTrainer:
        @staticmethod
        def build_network_architecture(
            architecture_class_name,
            arch_init_kwargs,
            arch_init_kwargs_req_import,
            inputs,
            outputs,
            enable_deep_supervision=True,
        ):
            architecture = (architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import)
            return get_network_from_plans(*architecture, inputs, outputs, deep_supervision=enable_deep_supervision)

    monkeypatch.setattr(model_loading, "recursive_find_trainer_class_by_name", lambda name: OldTrainer)
    with pytest.warns(DeprecationWarning, match="plans_manager, configuration_manager"):
        model = load_trained_model(model_folder("3d_fullres"), 0, FINAL)
    assert model.network(torch.zeros(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_unwrapped_looks_through_compilation() -> None:
    class Compiled(torch.nn.Module):  # as torch.compile returns it, without its seconds of imports
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self._orig_mod = network

    network = torch.nn.Linear(1, 1)
    assert unwrap(network) is network
    assert unwrap(Compiled(network)) is network

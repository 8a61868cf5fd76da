"""Models that trainings wrote before the heads were rebuilt: they predict the same voxels and go on with training.

Their folders are rebuilt from `recorded/vit_models.json`, see `recorded/make_vit_models.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.recorded import vit_model_folder
from tests.recorded.vit_model_folder import CHECKPOINT, FOLD, Recorded

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MODELS = vit_model_folder.read_recorded()


@pytest.fixture(params=MODELS)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return MODELS[request.param]


@pytest.fixture
def model_folder(recorded: Recorded, nnunet_folders: dict[str, Path]) -> Path:
    """The folder of the recorded model, and an empty dataset to go on training with."""
    vit_model_folder.write_empty_dataset(recorded.record["plans"], nnunet_folders["nnUNet_preprocessed"])
    return vit_model_folder.write_model(recorded, nnunet_folders["nnUNet_results"])


def test_it_predicts_the_same_voxels(recorded: Recorded, model_folder: Path, tmp_path: Path) -> None:
    labels, _, logits = vit_model_folder.predict(recorded, model_folder, tmp_path)
    np.testing.assert_array_equal(labels, recorded.arrays["labels"])
    np.testing.assert_allclose(logits, recorded.arrays["logits"], rtol=1e-5, atol=1e-5)


def test_its_settings_build_the_same_network_plans_and_groups(recorded: Recorded, model_folder: Path) -> None:
    trainer = vit_model_folder.make_trainer(recorded, model_folder)
    assert trainer.plans_manager.plans == recorded.record["plans"]
    trainer.initialize()
    shapes = {name: list(value.shape) for name, value in trainer.network.state_dict().items()}
    assert list(shapes.items()) == list(recorded.shapes.items())
    assert vit_model_folder.optimized_names(trainer) == recorded.optimized
    groups = vit_model_folder.decoded(recorded.record["optimizer"]["param_groups"])
    for group, before in zip(trainer.optimizer.param_groups, groups, strict=True):
        for setting in ("name", "initial_lr", "weight_decay", "betas", "eps"):
            assert group[setting] == before[setting], f"{setting} of {before['name']}"


def test_its_training_goes_on(recorded: Recorded, model_folder: Path, tmp_path: Path) -> None:
    trainer = vit_model_folder.make_trainer(recorded, model_folder)
    trainer.load_checkpoint(model_folder / FOLD / CHECKPOINT)
    before = vit_model_folder.checkpoint(recorded)
    assert trainer.current_epoch == before["current_epoch"]
    assert trainer.inference_allowed_mirroring_axes == before["inference_allowed_mirroring_axes"]
    assert len(trainer.optimizer.state) == len(before["optimizer_state"]["state"]) > 0
    assert vit_model_folder.two_losses(trainer) == pytest.approx(recorded.record["losses"], rel=1e-4)
    trainer.save_checkpoint(tmp_path / CHECKPOINT)
    after = load_checkpoint(tmp_path / CHECKPOINT)
    assert before.keys() <= after.keys()
    assert list(after["network_weights"]) == list(before["network_weights"])
    assert after["trainer_name"] == before["trainer_name"]
    assert before["init_args"].keys() <= after["init_args"].keys()
    assert after["init_args"]["plans"] == before["init_args"]["plans"]
    _assert_kept(after["trainer_config"], before["trainer_config"])


def test_masks_are_predicted_with_in_the_middle_of_a_training() -> None:
    """Otherwise the recorded model would not show that the buffer is read."""
    probabilities = MODELS["eomt-mid-training"].arrays["mask_probability"]
    assert probabilities[0] < 0.5 <= probabilities[1] < 1


def test_every_prediction_has_several_labels() -> None:
    for name, recorded in MODELS.items():
        counts = np.bincount(recorded.arrays["labels"].ravel())
        assert (counts > 20).sum() >= 2, name


def _assert_kept(after: dict[str, Any], before: dict[str, Any]) -> None:
    """Every setting has its value; there may be new ones."""
    for name, value in before.items():
        if isinstance(value, dict):
            _assert_kept(after[name], value)
        else:
            assert after[name] == value, name

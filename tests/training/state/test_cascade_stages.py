from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state.cascade_stages import require_previous_segmentations, unprepared_next_stages
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.training.tiny_dataset import CASES, make_trainer, write_tiny_dataset

DATASET = "Dataset009_X y"
MODEL = f"{DATASET}/T__P__3d_lowres"
PLANS = PlansManager(
    {
        "dataset_name": DATASET,
        "plans_name": "P",
        "configurations": {
            "3d_lowres": {"architecture": {}, "next_stage": "3d_cascade_fullres"},
            "3d_fullres": {"architecture": {}, "data_identifier": "P_3d_fullres"},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }
)


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """The folder that a previous stage writes to, with the cases a and c.1."""
    folder = tmp_path / MODEL / "predicted_next_stage" / "3d_cascade_fullres"
    folder.mkdir(parents=True)
    for name in ("a.b2nd", "c.1.npz", "c.1.npy"):
        (folder / name).touch()
    return folder


def test_all_there(predicted: Path, tmp_path: Path) -> None:
    require_previous_segmentations(predicted, ["a", "c.1"], "3d_lowres", str(tmp_path))


def test_outside_a_cascade_nothing_is_needed(tmp_path: Path) -> None:
    require_previous_segmentations(None, ["a"], "3d_lowres", str(tmp_path))


def test_missing_ones_come_with_the_command_of_each_fold(predicted: Path, tmp_path: Path) -> None:
    splits = [{"train": [], "val": val} for val in (["a"], ["b", "c.1"], ["d"], ["b", "d"])]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    (tmp_path / MODEL / "fold_2").mkdir()
    (tmp_path / MODEL / "fold_2" / "checkpoint_final.pth").touch()
    with pytest.raises(
        UsageError,
        match=r"those of 2 of 3 cases are not in .*\(b, d\).*; run: nnUNetv2_train 'Dataset009_X y' 3d_lowres 1 -tr T "
        r"-p P; nnUNetv2_train 'Dataset009_X y' 3d_lowres 2 -tr T -p P --val$",
    ):
        require_previous_segmentations(predicted, ["a", "b", "d", "a"], "3d_lowres", str(tmp_path))


def test_no_folder_and_no_splits(tmp_path: Path) -> None:
    folder, cases = tmp_path / MODEL / "predicted_next_stage" / "x", list("abcdefg")
    with pytest.raises(
        UsageError, match=r"those of 7 of 7 .*\(a, b, c, d, e, \.\.\.\).* FOLD -tr T -p P for each fold$"
    ):
        require_previous_segmentations(folder, cases, "3d_lowres", str(tmp_path))


def test_next_stage_without_cases_is_told_with_the_command(tmp_path: Path) -> None:
    lowres, fullres = (PLANS.get_configuration(name) for name in ("3d_lowres", "3d_fullres"))
    (warning,) = unprepared_next_stages(str(tmp_path), PLANS, lowres)
    assert warning.endswith("nnUNetv2_preprocess -d 9 -plans_name P -c 3d_cascade_fullres")
    assert unprepared_next_stages(str(tmp_path), PLANS, fullres) == []
    (tmp_path / "P_3d_fullres").mkdir()
    assert unprepared_next_stages(str(tmp_path), PLANS, lowres) == []


def test_a_trainer_names_the_training_and_validation_cases_at_once(nnunet_folders: dict[str, Path]) -> None:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = make_trainer(nnUNetTrainer)
    model = nnunet_folders["nnUNet_results"] / MODEL
    trainer.folder_with_segs_from_previous_stage = str(model / "predicted_next_stage" / "2d")
    with pytest.raises(UsageError, match=f"those of {len(CASES)} of {len(CASES)} cases are not in"):
        trainer.get_tr_and_val_datasets()

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.plans_file import warn_of_outdated_cases
from nnunetv2.experiment_planning.experiment_planners.resampling.planners_no_resampling import (
    nnUNetPlannerResEncL_noResampling,
)
from nnunetv2.experiment_planning.experiment_planners.resampling.resample_with_torch import (
    nnUNetPlannerResEncL_torchres_sepz,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
)
from nnunetv2.utilities.class_lookup import find_by_name
from tests.experiment_planning.tiny_dataset import write_image

RECORDED = json.loads((Path(__file__).parents[1] / "recorded" / "planning_plans.json").read_text())
NAME = "Dataset018_Planned"
PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}


def prepare(folders: dict[str, Path], name: str, dataset_json: dict, fingerprint: dict) -> Path:
    """Writes what planning reads: description, fingerprint, and one image for the choice of the reader."""
    raw, preprocessed = folders["nnUNet_raw"] / name, folders["nnUNet_preprocessed"] / name
    (raw / "imagesTr").mkdir(parents=True)
    preprocessed.mkdir()
    if dataset_json["file_ending"] == ".png":
        from skimage import io

        io.imsave(raw / "imagesTr" / "a_0000.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    else:
        write_image(raw / "imagesTr" / "a_0000.nii.gz", np.zeros((4, 4, 4), np.float32), (1, 1, 1))
    (raw / "dataset.json").write_text(json.dumps(dataset_json))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return preprocessed


@pytest.fixture
def planned_dataset(nnunet_folders) -> Path:
    """A dataset that gets all four configurations; returns its preprocessed folder."""
    case = RECORDED["large_anisotropic_ct"]
    return prepare(nnunet_folders, NAME, case["dataset_json"], case["fingerprint"])


@pytest.mark.parametrize(("case", "planner"), [(case, p) for case in RECORDED for p in RECORDED[case]["plans"]])
def test_plans_equal_upstreams(case, planner, nnunet_folders):
    recorded = RECORDED[case]
    preprocessed = prepare(nnunet_folders, NAME, recorded["dataset_json"], recorded["fingerprint"])
    plans = find_by_name("experiment planner", planner)(18).plan_experiment()
    (written,) = preprocessed.glob("nnUNet*Plans.json")
    assert json.dumps(json.loads(written.read_text())) == json.dumps(recorded["plans"][planner])
    assert plans == recorded["plans"][planner]


@pytest.mark.oracle
@pytest.mark.parametrize("source", ["preprocessed", "full_plans", "lowres_plans"])
def test_recorded_plans_of_all_planners_equal_upstreams(source, oracle_recorded, nnunet_folders):
    compared = 0
    for recorded in sorted((oracle_recorded / source).iterdir()):
        raw = nnunet_folders["nnUNet_raw"] / recorded.name
        preprocessed = nnunet_folders["nnUNet_preprocessed"] / recorded.name
        raw.mkdir()
        preprocessed.mkdir()
        (raw / "imagesTr").symlink_to(oracle_recorded / "raw" / recorded.name / "imagesTr")
        shutil.copy(recorded / "dataset.json", raw)
        shutil.copy(recorded / "dataset_fingerprint.json", preprocessed)
        for plans_name, planner in PLANNERS.items():
            if not (recorded / f"{plans_name}.json").is_file():
                continue
            expected = json.loads((recorded / f"{plans_name}.json").read_text())
            added_later = [name for name in expected["configurations"] if name.endswith("_tiny")]
            for name in added_later:
                del expected["configurations"][name]
            find_by_name("experiment planner", planner)(recorded.name).plan_experiment()
            assert json.dumps(json.loads((preprocessed / f"{plans_name}.json").read_text())) == json.dumps(expected)
            compared += 1
    assert compared == {"preprocessed": 16, "full_plans": 16, "lowres_plans": 2}[source]


def test_configurations_of_the_user_are_kept(planned_dataset):
    planner = ExperimentPlanner(18)
    planner.plan_experiment()
    plans_file = planned_dataset / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["2d_mine"] = {"inherits_from": "2d", "batch_size": 3}
    plans["configurations"]["2d"]["batch_size"] = 7
    plans_file.write_text(json.dumps(plans))
    replanned = planner.plan_experiment()
    assert list(replanned["configurations"]) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres", "2d_mine"]
    assert replanned["configurations"]["2d_mine"] == {"inherits_from": "2d", "batch_size": 3}
    assert replanned["configurations"]["2d"]["batch_size"] != 7
    assert json.loads(plans_file.read_text()) == replanned


def test_cases_that_were_preprocessed_by_the_older_plans_are_named(planned_dataset, caplog):
    ExperimentPlanner(18, overwrite_target_spacing=(3, 1.5, 1.0)).plan_experiment()
    (planned_dataset / "nnUNetPlans_2d").mkdir()
    (planned_dataset / "nnUNetPlans_3d_fullres").mkdir()
    ExperimentPlanner(18, overwrite_target_spacing=(3, 1.5, 1.0), gpu_memory_target_in_gb=9).plan_experiment()
    assert "preprocessed with other settings" not in caplog.text
    ExperimentPlanner(18, overwrite_target_spacing=(4, 1.5, 1.0)).plan_experiment()  # 2d has no first axis
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith(f"The cases in nnUNetPlans_3d_fullres of {planned_dataset} were preprocessed with other")
    command = "run nnUNetv2_preprocess -d 18 -plans_name nnUNetPlans -c 3d_fullres before you train"
    assert message.endswith(command)


@pytest.mark.parametrize(
    ("changes", "is_outdated"),
    [
        ({"spacing": [1.0000001, 2.0]}, False),
        ({"batch_size": 4}, False),
        ({"spacing": [1.0, 2.1]}, True),
        ({"normalization_schemes": ["CTNormalization"]}, True),
        ({"resampling_fn_data_kwargs": {"order": 1}}, True),
        ({"preprocessor_name": "Mine"}, True),
    ],
)
def test_which_settings_change_the_preprocessed_cases(changes, is_outdated, tmp_path, caplog):
    folder = tmp_path / "Dataset018_Planned"
    (folder / "cases").mkdir(parents=True)
    entry = {"data_identifier": "cases", "spacing": [1.0, 2.0], "normalization_schemes": ["ZScoreNormalization"]}
    entry |= {"architecture": {}, "resampling_fn_data_kwargs": {"order": 3}}
    older = {"configurations": {"2d": entry, "mine": {"inherits_from": "2d"}}, "transpose_forward": [0, 1, 2]}
    newer = {**older, "configurations": {"2d": {**entry, **changes}, "mine": {"inherits_from": "2d"}}}
    warn_of_outdated_cases(older, newer, "P", folder)
    assert ("-plans_name P -c 2d before" in caplog.text) == is_outdated


def test_planning_does_without_augmentation_workers(planned_dataset, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    assert "2d" in ExperimentPlanner(18).plan_experiment()["configurations"]


def test_constructing_a_planner_writes_nothing(planned_dataset):
    before = sorted(planned_dataset.rglob("*"))
    ExperimentPlanner(18)
    assert sorted(planned_dataset.rglob("*")) == before


def test_spacing_without_a_possible_patch_is_refused(planned_dataset):
    message = "differs between axes by more than a factor of 10000, for which there is no"
    with pytest.raises(DataError, match=message):
        ExperimentPlanner(18, overwrite_target_spacing=(1, 1, 5e-5)).plan_experiment()
    with pytest.raises(DataError, match=message):
        ExperimentPlanner(18).get_plans_for_configuration((20_000, 1, 1), (20, 42, 40), "cases", 1e5, {})


def test_target_spacing_can_be_given(planned_dataset):
    plans = ExperimentPlanner(18, overwrite_target_spacing=(3, 1.5, 1.0)).plan_experiment()
    assert plans["configurations"]["3d_fullres"]["spacing"] == [3.0, 1.5, 1.0]
    assert plans["configurations"]["2d"]["spacing"] == [1.5, 1.0]


@pytest.mark.parametrize("spacing", [(1.0, 2.0), ("a", 1, 1), (0, 1, 1), ()])
def test_target_spacing_must_be_three_positive_numbers(planned_dataset, spacing):
    with pytest.raises(UsageError, match="must be three numbers above 0"):
        ExperimentPlanner(18, overwrite_target_spacing=spacing)


def test_memory_target_changes_the_patch(planned_dataset, caplog):
    usual = nnUNetPlannerResEncM(18).plan_experiment()["configurations"]["3d_fullres"]["patch_size"]
    assert not caplog.records
    larger = nnUNetPlannerResEncM(18, 16, plans_name="mine").plan_experiment()["configurations"]["3d_fullres"]
    assert np.prod(larger["patch_size"]) > np.prod(usual)
    assert "made for 8 GB of GPU memory, and plans for 16 GB" in caplog.text
    with pytest.raises(UsageError, match="memory target is 0 GB; it must be above 0"):
        ExperimentPlanner(18, 0)


def test_transpose_can_be_suppressed(nnunet_folders):
    case = RECORDED["slices_along_last_axis"]
    prepare(nnunet_folders, NAME, case["dataset_json"], case["fingerprint"])
    assert ExperimentPlanner(18).determine_transpose() == ([2, 0, 1], [1, 2, 0])
    assert ExperimentPlanner(18, suppress_transpose=True).determine_transpose() == ([0, 1, 2], [0, 1, 2])


def test_missing_fingerprint_is_a_usage_error(planned_dataset):
    (planned_dataset / "dataset_fingerprint.json").unlink()
    with pytest.raises(UsageError, match="run nnUNetv2_extract_fingerprint first"):
        ExperimentPlanner(18)


def test_splits_of_the_raw_dataset_are_copied_and_later_compared(planned_dataset, nnunet_folders):
    source = nnunet_folders["nnUNet_raw"] / NAME / "splits_final.json"
    source.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    ExperimentPlanner(18).plan_experiment()
    copied = planned_dataset / "splits_final.json"
    assert json.loads(copied.read_text()) == [{"train": ["a"], "val": ["b"]}]
    copied.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    ExperimentPlanner(18).plan_experiment()
    copied.write_text(json.dumps([{"train": ["b"], "val": ["a"]}]))
    with pytest.raises(DataError, match="Fold 0 of .* differs"):
        ExperimentPlanner(18).plan_experiment()


def test_dataset_json_is_copied_beside_the_plans(planned_dataset, nnunet_folders):
    ExperimentPlanner(18).plan_experiment()
    raw = nnunet_folders["nnUNet_raw"] / NAME / "dataset.json"
    assert (planned_dataset / "dataset.json").read_bytes() == raw.read_bytes()


def test_planners_that_resample_otherwise_say_so_and_keep_their_data_apart(planned_dataset):
    configuration = nnUNetPlannerResEncL_noResampling(18).plan_experiment()["configurations"]["3d_fullres"]
    assert configuration["resampling_fn_data"] == "no_resampling_hack"
    assert configuration["data_identifier"] == "nnUNetResEncUNetLPlans_noResampling_3d_fullres"
    configuration = nnUNetPlannerResEncL_torchres_sepz(18).plan_experiment()["configurations"]["3d_fullres"]
    assert configuration["resampling_fn_seg"] == "resample_torch_fornnunet"
    assert configuration["resampling_fn_seg_kwargs"] == {
        "is_seg": True,
        "force_separate_z": None,
        "memefficient_seg_resampling": False,
        "separate_z_anisotropy_threshold": 3,
    }
    assert nnUNetPlannerResEncL(18).generate_data_identifier("3d_fullres") == "nnUNetPlans_3d_fullres"


def test_rules_can_be_changed_by_attributes_after_construction(planned_dataset):
    class SmallNetworks(ExperimentPlanner):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.UNet_base_num_features = 8
            self.UNet_max_features_3d = 64

    architecture = SmallNetworks(18).plan_experiment()["configurations"]["3d_fullres"]["architecture"]
    assert architecture["arch_kwargs"]["features_per_stage"][:5] == [8, 16, 32, 64, 64]

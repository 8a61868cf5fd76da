"""Records upstream's fingerprint, plans and flags for the tests of experiment planning.

Run with an interpreter that has upstream nnunetv2 2.8.1 (and not this project):

    UPSTREAM/bin/python tests/recorded/make_planning.py

It writes planning_fingerprint.json, planning_plans.json and cli_planning.json beside itself.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NUM_DRAWS = 1e5  # upstream's 1e8 would only take longer
PLANNERS = "nnunetv2.experiment_planning.experiment_planners"
DEFAULT = (f"{PLANNERS}.default_experiment_planner", "ExperimentPlanner")
RESIDUAL = f"{PLANNERS}.residual_unets.residual_encoder_unet_planners"
ENTRY_POINTS = {
    "nnUNetv2_extract_fingerprint": "plan_and_preprocess_entrypoints.extract_fingerprint_entry",
    "nnUNetv2_plan_experiment": "plan_and_preprocess_entrypoints.plan_experiment_entry",
    "nnUNetv2_preprocess": "plan_and_preprocess_entrypoints.preprocess_entry",
    "nnUNetv2_plan_and_preprocess": "plan_and_preprocess_entrypoints.plan_and_preprocess_entry",
    "nnUNetv2_evaluate_folder": "evaluate_predictions.evaluate_folder_entry_point",
    "nnUNetv2_evaluate_simple": "evaluate_predictions.evaluate_simple_entry_point",
}

INTENSITIES = {
    "max": 9.0,
    "mean": 5.0,
    "median": 5.0,
    "min": 1.0,
    "percentile_00_5": 2.0,
    "percentile_99_5": 8.0,
    "std": 1,
}
CASES = {
    "large_anisotropic_ct": {
        "planners": [DEFAULT, (RESIDUAL, "nnUNetPlannerResEncL")],
        "dataset_json": {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "organ": 1, "lesion": 2},
            "numTraining": 3,
            "file_ending": ".nii.gz",
        },
        "spacings": [[2.5, 0.7, 0.7], [2.0, 0.8, 0.8], [1.5, 0.9, 0.9]],
        "shapes_after_crop": [[240, 512, 512], [300, 480, 512], [410, 400, 512]],
        "median_relative_size_after_cropping": 0.9,
    },
    "slices_along_last_axis": {
        "planners": [DEFAULT, (RESIDUAL, "nnUNetPlannerResEncM")],
        "dataset_json": {
            "channel_names": {"0": "T1", "1": "FLAIR"},
            "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
            "regions_class_order": [1, 2],
            "numTraining": 2,
            "file_ending": ".nii.gz",
        },
        "spacings": [[0.9, 0.9, 6.0], [1.0, 1.0, 4.5]],
        "shapes_after_crop": [[150, 170, 22], [140, 166, 30]],
        "median_relative_size_after_cropping": 0.4,
    },
    "photographs": {
        "planners": [DEFAULT, (RESIDUAL, "nnUNetPlannerResEncXL")],
        "dataset_json": {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": {"background": 0, "cell": 1},
            "numTraining": 40,
            "file_ending": ".png",
        },
        "spacings": [[999, 1, 1], [999, 1, 1]],
        "shapes_after_crop": [[1, 700, 1100], [1, 512, 900]],
        "median_relative_size_after_cropping": 1.0,
    },
}


def load_tiny_dataset_module():
    path = HERE.parent / "experiment_planning" / "tiny_dataset.py"
    spec = importlib.util.spec_from_file_location("tiny_dataset", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record_fingerprint(raw: Path, preprocessed: Path) -> None:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    tiny_dataset = load_tiny_dataset_module()
    tiny_dataset.write_tiny_dataset(raw)
    extractor = DatasetFingerprintExtractor(tiny_dataset.NAME, 1)
    extractor.num_foreground_voxels_for_intensitystats = NUM_DRAWS
    extractor.run()
    text = (preprocessed / tiny_dataset.NAME / "dataset_fingerprint.json").read_text()
    (HERE / "planning_fingerprint.json").write_text(json.dumps(json.loads(text)) + "\n")


def record_plans(raw: Path, preprocessed: Path) -> None:
    import numpy as np
    import SimpleITK as sitk
    from skimage import io

    recorded = {}
    for case in CASES.values():
        case["foreground_intensity_properties_per_channel"] = {
            c: INTENSITIES for c in case["dataset_json"]["channel_names"]
        }
    for name, case in CASES.items():
        dataset = "Dataset018_Planned"
        images = raw / dataset / "imagesTr"
        images.mkdir(parents=True, exist_ok=True)
        (preprocessed / dataset).mkdir(exist_ok=True)
        for older in images.iterdir():
            older.unlink()
        if case["dataset_json"]["file_ending"] == ".png":
            io.imsave(images / "a_0000.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
        else:
            sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8, 8), np.float32)), str(images / "a_0000.nii.gz"))
        fingerprint = {key: value for key, value in case.items() if key not in ("planners", "dataset_json")}
        (raw / dataset / "dataset.json").write_text(json.dumps(case["dataset_json"]))
        (preprocessed / dataset / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        plans = {}
        for module, planner in case["planners"]:
            getattr(importlib.import_module(module), planner)(dataset).plan_experiment()
            (plans_file,) = (preprocessed / dataset).glob("nnUNet*.json")
            plans[planner] = json.loads(plans_file.read_text())
            plans_file.unlink()
        recorded[name] = {"dataset_json": case["dataset_json"], "fingerprint": fingerprint, "plans": plans}
    (HERE / "planning_plans.json").write_text(json.dumps(recorded) + "\n")


def record_flags() -> None:
    class ParserSeen(Exception):
        pass

    def stop(parser, *args, **kwargs):
        raise ParserSeen(parser)

    argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_known_args = stop
    flags = {}
    for command, entry in ENTRY_POINTS.items():
        module, function = entry.split(".")
        package = "evaluation" if module == "evaluate_predictions" else "experiment_planning"
        try:
            getattr(importlib.import_module(f"nnunetv2.{package}.{module}"), function)()
        except ParserSeen as seen:
            flags[command] = [
                {
                    "flags": action.option_strings or [action.dest],
                    "nargs": action.nargs,
                    "type": getattr(action.type, "__name__", None),
                    "default": action.default,
                    "required": action.required,
                }
                for action in seen.args[0]._actions
                if action.dest != "help"
            ]
    (HERE / "cli_planning.json").write_text(json.dumps(flags, indent=1) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        raw, preprocessed = Path(scratch, "raw"), Path(scratch, "preprocessed")
        for folder, variable in ((raw, "nnUNet_raw"), (preprocessed, "nnUNet_preprocessed")):
            folder.mkdir()
            os.environ[variable] = str(folder)
        os.environ["nnUNet_n_proc_DA"] = "1"
        os.environ.pop("nnUNet_def_n_proc", None)
        record_fingerprint(raw, preprocessed)
        record_plans(raw, preprocessed)
        record_flags()


if __name__ == "__main__":
    main()

"""Records upstream's plans of every planner, and of every option of planning, for `planner_plans.json`.

Run with an interpreter that has upstream nnunetv2 2.8.1 (and not this project):

    UPSTREAM/bin/python tests/recorded/make_planners.py

The fingerprints are those of `planning_plans.json`, which make_planning.py writes.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATASET = "Dataset018_Planned"
PACKAGE = "nnunetv2.experiment_planning.experiment_planners"
RESIDUAL = "residual_unets.residual_encoder_unet_planners"
TORCH = "resampling.resample_with_torch"
PLANNERS = [
    ("default_experiment_planner", "ExperimentPlanner"),
    ("resencUNet_planner", "ResEncUNetPlanner"),
    (RESIDUAL, "ResEncUNetPlanner"),
    (RESIDUAL, "nnUNetPlannerResEncM"),
    (RESIDUAL, "nnUNetPlannerResEncL"),
    (RESIDUAL, "nnUNetPlannerResEncXL"),
    (TORCH, "nnUNetPlannerResEncL_torchres"),
    (TORCH, "nnUNetPlannerResEncL_torchres_sepz"),
    (TORCH, "nnUNetPlanner_torchres"),
    ("resampling.planners_no_resampling", "nnUNetPlannerResEncL_noResampling"),
]
OPTIONS = [
    {"overwrite_target_spacing": [3, 1.5, 1.0]},
    {"overwrite_target_spacing": [0.6, 0.5, 4.0], "overwrite_plans_name": "otherSpacing"},
    {"gpu_memory_target_in_gb": 4},
    {"gpu_memory_target_in_gb": 11.5, "overwrite_plans_name": "mine"},
    {"preprocess_class_name": "DefaultPreprocessorOfMine", "overwrite_plans_name": "minePlans"},
]
PARTS = {"network": ("architecture",), "preprocessing": ("resampling_", "normalization_", "use_mask_")}
WITH_OPTIONS = {
    "large_anisotropic_ct": [("default_experiment_planner", "ExperimentPlanner")],
    "slices_along_last_axis": [(RESIDUAL, "nnUNetPlannerResEncL")],
    "photographs": [],
}


def write_dataset(raw: Path, preprocessed: Path, case: dict[str, Any]) -> None:
    """Writes what planning reads, in place of an earlier dataset."""
    import numpy as np
    import SimpleITK as sitk
    from skimage import io

    images = raw / DATASET / "imagesTr"
    images.mkdir(parents=True, exist_ok=True)
    (preprocessed / DATASET).mkdir(exist_ok=True)
    for older in images.iterdir():
        older.unlink()
    if case["dataset_json"]["file_ending"] == ".png":
        io.imsave(images / "a_0000.png", np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8, 8), np.float32)), str(images / "a_0000.nii.gz"))
    (raw / DATASET / "dataset.json").write_text(json.dumps(case["dataset_json"]))
    (preprocessed / DATASET / "dataset_fingerprint.json").write_text(json.dumps(case["fingerprint"]))


def plan(folder: Path, module: str, planner: str, options: dict[str, Any]) -> dict[str, Any]:
    """Plans with upstream and returns what it wrote."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    planner_class = getattr(importlib.import_module(f"{PACKAGE}.{module}"), planner)
    _, name = plan_experiment_dataset(18, planner_class, **options)
    plans_file = folder / f"{name}.json"
    plans = json.loads(plans_file.read_text())
    plans_file.unlink()
    return plans


def without_repetition(plans: dict[str, Any], tables: dict[str, list]) -> dict[str, Any]:
    """Replaces what many plans have in common by its position in a table, to keep the file small."""
    for configuration in plans["configurations"].values():
        for name, table in tables.items():
            part = {key: configuration.pop(key) for key in list(configuration) if key.startswith(PARTS[name])}
            if part:
                if part not in table:
                    table.append(part)
                configuration[name] = table.index(part)
    return plans


def main() -> None:
    import torch

    torch.set_default_device("meta")  # the networks are built only to be measured
    cases = json.loads((HERE / "planning_plans.json").read_text())
    tables: dict[str, list] = {name: [] for name in PARTS}
    recorded = []
    with tempfile.TemporaryDirectory() as scratch:
        raw, preprocessed = Path(scratch, "raw"), Path(scratch, "preprocessed")
        for folder, variable in ((raw, "nnUNet_raw"), (preprocessed, "nnUNet_preprocessed")):
            folder.mkdir()
            os.environ[variable] = str(folder)
        os.environ["nnUNet_n_proc_DA"] = "1"
        for name, case in cases.items():
            write_dataset(raw, preprocessed, case)
            wanted = [(module, planner, {}) for module, planner in PLANNERS]
            wanted += [(module, planner, options) for module, planner in WITH_OPTIONS[name] for options in OPTIONS]
            for module, planner, options in wanted:
                plans = without_repetition(plan(preprocessed / DATASET, module, planner, options), tables)
                del plans["foreground_intensity_properties_per_channel"]  # as in the fingerprint
                recorded.append(
                    {"case": name, "module": module, "planner": planner, "options": options, "plans": plans}
                )
    content = {"tables": tables, "recorded": recorded}
    (HERE / "planner_plans.json").write_text(json.dumps(content) + "\n")
    print(f"{len(recorded)} plans, {len(tables['network'])} networks")


if __name__ == "__main__":
    main()

"""A folder of results, and the exports of it that `make_model_sharing.py` records; needs neither nnU-Net."""

import json
import shutil
from pathlib import Path

DATASET = "Dataset990_TinyModels"
MODELS = Path(__file__).parent / "inference" / "models"
CONFIGURATIONS = ("2d", "3d_fullres")
ENSEMBLE = "ensemble___nnUNetTrainer__nnUNetPlans__2d___nnUNetTrainer__nnUNetPlans__3d_fullres___0"

# Upstream's `--not_strict` has no effect and does not excuse missing folds, so nothing is missing here.
CALLS = {
    "one_fold": {"configurations": ["2d"], "folds": [0]},
    "folds_as_text": {"configurations": ["3d_fullres"], "folds": ["0", "1"]},
    "two_configurations": {"configurations": ["2d", "3d_fullres"], "folds": [0]},
    "two_checkpoints": {
        "configurations": ["2d"],
        "folds": [0],
        "save_checkpoints": ["checkpoint_final.pth", "checkpoint_best.pth"],
    },
    "predictions": {"configurations": ["2d", "3d_fullres"], "folds": [0], "export_crossval_predictions": True},
}


def write_results(root: Path) -> Path:
    """Writes trained models with everything that a cross-validation leaves; returns the dataset's folder."""
    dataset = root / DATASET
    for configuration in CONFIGURATIONS:
        name = f"nnUNetTrainer__nnUNetPlans__{configuration}"
        model = dataset / name
        shutil.copytree(MODELS / name, model)
        _write_json(model / "dataset_fingerprint.json", {"spacings": [[1.0, 1.0, 1.0]]})
        for fold in model.glob("fold_*"):
            shutil.copyfile(fold / "checkpoint_final.pth", fold / "checkpoint_best.pth")
            _write_json(fold / "debug.json", {"hostname": "a-machine", "fold": fold.name, "where": str(fold)})
            _write(fold, "progress.png", "training_log_2026.txt")
            _write_validation(fold / "validation")
        for folds in ("0", "0_1"):
            results = model / f"crossval_results_folds_{folds}"
            _write_validation(results)
            _write(results, "postprocessing.json")
            for description in ("plans.json", "dataset.json"):
                shutil.copyfile(model / description, results / description)
    _write_validation(dataset / "ensembles" / ENSEMBLE)
    _write(dataset / "ensembles" / ENSEMBLE, "postprocessing.json")
    _write_validation(dataset / "ensembles" / ENSEMBLE.replace("__2d", "__3d_lowres"))
    _write(dataset, "inference_information.json")
    (dataset / "inference_instructions.txt").write_text("predict, then ensemble")
    return dataset


def _write_validation(folder: Path) -> None:
    _write(folder, "case_1.nii.gz", "case_2.nii.gz", "case_1.npz", "case_1.pkl")
    _write_json(folder / "summary.json", {"foreground_mean": {"Dice": 0.5}, "prediction_file": str(folder / "case_1")})


def _write(folder: Path, *names: str) -> None:
    for name in names:
        if name.endswith(".json"):
            _write_json(folder / name, {"name": name})
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))

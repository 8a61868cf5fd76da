"""Cross-validations of two models, and what finding the best of them leaves, for `make_best_configuration.py`."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SHAPE = (5, 14, 12)  # z, y, x
SPACING = (3.0, 1.0, 0.5)  # z, y, x, in mm
FOLDS = (0, 1, 2)
CASES = tuple(f"case_{number}" for number in range(6))
CONFIGURATIONS = ("2d", "3d_fullres")
DATASET_NUMBER = 992
PROPERTIES = {
    "spacing": list(SPACING),
    "sitk_stuff": {
        "spacing": SPACING[::-1],
        "origin": (1.0, -2.0, 3.0),
        "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    },
}
LABELS = {
    "labels": {"labels": {"background": 0, "a": 1, "b": 2}},
    "regions": {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]},
    "ignore": {"labels": {"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}},
    "one_label": {"labels": {"background": 0, "a": 1}},
    "clean": {"labels": {"background": 0, "a": 1, "b": 2}},
}
KINDS = tuple(LABELS)


def dataset_name(kind: str) -> str:
    return f"Dataset{DATASET_NUMBER}_{kind}"


def dataset_json(kind: str) -> dict:
    return {"channel_names": {"0": "MRI"}, "numTraining": len(CASES), "file_ending": ".nii.gz", **LABELS[kind]}


def plans(kind: str) -> dict:
    stages = {"3d_lowres": {"next_stage": "3d_cascade_fullres"}, "3d_cascade_fullres": {"previous_stage": "3d_lowres"}}
    return {
        "dataset_name": dataset_name(kind),
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: {"architecture": {}, **stages.get(name, {})} for name in (*CONFIGURATIONS, *stages)},
    }


def reference(kind: str, case: int) -> np.ndarray:
    """Two touching boxes, label 2 inside label 1; the last case has no label 2; a corner may be ignored."""
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[1:4, 2:9, 2 : 7 + case % 2] = 1
    if case < 5 and kind != "one_label":
        segmentation[2:4, 4:7, 3:6] = 2
    if kind == "ignore":
        segmentation[1:3, 9:11, 2:5] = 3
        segmentation[0, :4, :4] = 4
    return segmentation


def prediction(kind: str, model: int, case: int) -> np.ndarray:
    """The reference with errors: islands far away and islands of one label inside another."""
    labels = reference(kind, case)
    labels[labels == 4] = 1
    generator = np.random.default_rng((KINDS.index(kind), model, case))
    wrong = generator.random(SHAPE) < 0.06 + 0.02 * model
    inside = labels > 0
    if kind == "clean":  # errors that no component tells apart from what is right
        labels[1, 8, 2:7] = 0
        labels[3, 2, 2:7] = 0 if model else 1
        return labels
    labels[wrong & inside] = generator.integers(0, 3 if kind != "one_label" else 2, int((wrong & inside).sum()))
    if kind != "ignore" or model:
        labels[0, 12:14, 9 : 11 + case % 2] = 1 + model * (kind != "one_label")
    return labels


def probabilities(kind: str, model: int, case: int) -> np.ndarray:
    """(K, Z, Y, X), float32; their segmentation is `prediction`."""
    labels = prediction(kind, model, case)
    generator = np.random.default_rng((KINDS.index(kind), model, case, 1))
    confidence = 0.55 + 0.4 * generator.random(SHAPE)
    if kind == "clean":
        confidence[labels != reference(kind, case)] = 0.51
    if kind == "regions":
        return np.stack([np.where(mask, confidence, 1 - confidence) for mask in (labels > 0, labels == 2)]).astype("f4")
    num_classes = len([name for name in LABELS[kind]["labels"] if name != "ignore"])
    one_hot = np.stack([labels == label for label in range(num_classes)])
    return np.where(one_hot, confidence, (1 - confidence) / (num_classes - 1)).astype("f4")


def cases_of_fold(model: int, fold: int) -> list[int]:
    """The models have different splits of the same cases."""
    return [case for case in range(len(CASES)) if (case + model) % len(FOLDS) == fold]


def write_segmentation(array: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(PROPERTIES["sitk_stuff"]["origin"])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)


def write_validation(folder: Path, kind: str, model: int, cases: list[int], *, npz: bool = True) -> None:
    """Writes what validating with `--npz` leaves in a folder."""
    for case in cases:
        write_segmentation(prediction(kind, model, case), folder / f"{CASES[case]}.nii.gz")
        if npz:
            np.savez_compressed(folder / f"{CASES[case]}.npz", probabilities=probabilities(kind, model, case))
            (folder / f"{CASES[case]}.pkl").write_bytes(pickle.dumps(PROPERTIES))


def write_descriptions(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans(kind)))
    (folder / "dataset.json").write_text(json.dumps(dataset_json(kind)))


def write_model(
    results: Path, kind: str, model: int, configuration: str, trainer: str = "nnUNetTrainer", *, npz: bool = True
) -> Path:
    """Writes the trained model that `model` numbers, without its weights."""
    folder = results / dataset_name(kind) / f"{trainer}__nnUNetPlans__{configuration}"
    write_descriptions(folder, kind)
    for fold in FOLDS:
        write_validation(folder / f"fold_{fold}" / "validation", kind, model, cases_of_fold(model, fold), npz=npz)
    return folder


def write_references(folders: dict[str, Path], kind: str) -> None:
    """Writes what preprocessing leaves below the roots of nnU-Net, without images."""
    preprocessed = folders["nnUNet_preprocessed"] / dataset_name(kind)
    (folders["nnUNet_raw"] / dataset_name(kind)).mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(CASES):
        write_segmentation(reference(kind, number), preprocessed / "gt_segmentations" / f"{case}.nii.gz")
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans(kind)))


def write_experiment(folders: dict[str, Path], kind: str) -> list[Path]:
    """Writes plans, references and two trained models below the three roots of nnU-Net; returns the models."""
    write_references(folders, kind)
    return [
        write_model(folders["nnUNet_results"], kind, model, configuration)
        for model, configuration in enumerate(CONFIGURATIONS)
    ]


def snapshot(folders: dict[str, Path]) -> dict[str, dict]:
    """What was written below `nnUNet_results` beside the folds: names of files, contents, digests of the voxels.

    Paths are those below `nnUNet_results`. Of summaries there are the means, and the Dice of each case.
    """
    results = folders["nnUNet_results"]
    written = sorted(path for path in results.rglob("*") if path.is_file() and "validation" not in path.parts)
    contents = {str(path.relative_to(results)): path for path in written}
    return {
        "files": list(contents),
        "json": {name: _content(path, results) for name, path in contents.items() if path.name in _RECORDED_CONTENTS},
        "segmentations": {name: _digest(path) for name, path in contents.items() if name.endswith(".nii.gz")},
    }


_RECORDED_CONTENTS = ("summary.json", "postprocessing.json", "inference_information.json")


def _content(path: Path, results: Path) -> dict:
    content = json.loads(path.read_text().replace(f"{results}/", ""))
    for case in content.get("metric_per_case", []):
        case["metrics"] = {region: metrics["Dice"] for region, metrics in case["metrics"].items()}
        for file in ("prediction_file", "reference_file"):  # upstream's paths are those of folders that it has removed
            case[file] = Path(case[file]).name
    return content


def _digest(path: Path) -> str:
    """Of the voxels as unsigned 16 bit: writers may choose other types."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return hashlib.sha256(array.astype(np.uint16).tobytes()).hexdigest()[:12]

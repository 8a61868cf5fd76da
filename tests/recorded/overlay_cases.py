"""Datasets of which `make_overlays.py` records the pictures; needs neither nnU-Net."""

import json
from pathlib import Path

import nibabel
import numpy as np
from skimage import io

VOLUMES, PHOTOS = "Dataset981_Volumes", "Dataset982_Photos"
SHAPE = (5, 12, 9)  # z, y, x
CASES = {"three_labels": (0, 1, 2, 3), "sparse_labels": (0, 2, 9), "no_foreground": (0,), "no_background": (3, 4)}
RAW_CALLS = {"raw": (VOLUMES, {}), "raw_channel_1": (VOLUMES, {"channel_idx": 1}), "photos": (PHOTOS, {})}
PREPROCESSED_CALLS = {
    "preprocessed": {},
    "preprocessed_2d": {"configuration": "2d", "channel_idx": 1, "overlay_intensity": 0.25},
}


def case_arrays(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Image (2, Z, Y, X) float32 with negative values, labels (1, Z, Y, X) in blobs that differ from slice to slice."""
    random = np.random.default_rng(list(CASES).index(case))
    image = random.normal(scale=100, size=(2, *SHAPE)).astype(np.float32)
    labels = random.choice(CASES[case], size=(1, *SHAPE), p=_weights(len(CASES[case]))).astype(np.int16)
    return image, labels


def preprocessed_arrays(case: str) -> tuple[np.ndarray, np.ndarray]:
    """The same with -1 in the labels, as preprocessing marks what is outside."""
    image, labels = case_arrays(case)
    labels[0, :, :3] = -1
    return image, labels


def picture_arrays() -> dict[str, tuple[np.ndarray, np.ndarray, dict]]:
    """Arguments of `generate_overlay`."""
    image, labels = case_arrays("three_labels")
    return {
        "float32": (image[0, 0], labels[0, 0], {}),
        "uint8": ((image[0, 1] % 256).astype(np.uint8), labels[0, 1], {"overlay_intensity": 0.3}),
        "one_channel": (image[1, 0][..., None], labels[0, 0], {"mapping": {1: 4, 3: 2}}),
        "own_colors": (
            image[1, 1].astype(np.float64),
            labels[0, 1],
            {"color_cycle": ("000000", "ff0000", "00ff00", "0A0b0C")},
        ),
    }


def write_raw(root: Path) -> None:
    """Volumes of two channels as NIfTI, and colour photographs as PNG."""
    for case in CASES:
        image, labels = case_arrays(case)
        for channel in range(2):
            _write_nifti(root / VOLUMES / "imagesTr" / f"{case}_{channel:04d}.nii.gz", image[channel])
        _write_nifti(root / VOLUMES / "labelsTr" / f"{case}.nii.gz", labels[0].astype(np.uint8))
    _describe(root / VOLUMES, {"0": "CT", "1": "PET"}, ".nii.gz")
    for case in ("three_labels", "sparse_labels"):
        image, labels = case_arrays(case)
        photo = (image.reshape(-1)[: 12 * 9 * 3].reshape(12, 9, 3) % 256).astype(np.uint8)
        _write_png(root / PHOTOS / "imagesTr" / f"{case}_0000.png", photo)
        _write_png(root / PHOTOS / "labelsTr" / f"{case}.png", labels[0, 0].astype(np.uint8))
    _describe(root / PHOTOS, {"0": "R", "1": "G", "2": "B"}, ".png")


def write_plans(root: Path) -> dict[str, Path]:
    """Plans of two configurations; returns the folders that their cases belong into."""
    folders = {name: root / VOLUMES / f"nnUNetPlans_{name}" for name in ("2d", "3d_fullres")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    plans = {
        "dataset_name": VOLUMES,
        "plans_name": "nnUNetPlans",
        "configurations": {
            name: {"data_identifier": folder.name, "architecture": {}, "patch_size": [4] * int(name[0])}
            for name, folder in folders.items()
        },
    }
    (root / VOLUMES / "nnUNetPlans.json").write_text(json.dumps(plans))
    return folders


def _weights(number: int) -> np.ndarray:
    weights = 0.5 ** np.arange(number)
    return weights / weights.sum()


def _write_nifti(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.0, 1.0, 3.0, 1.0])), path)


def _write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, array, check_contrast=False)


def _describe(folder: Path, channel_names: dict, file_ending: str) -> None:
    num_cases = len(list((folder / "labelsTr").iterdir()))
    labels = {"background": 0, **{f"label {value}": value for value in range(1, 10)}}
    content = {"channel_names": channel_names, "labels": labels, "numTraining": num_cases, "file_ending": file_ending}
    (folder / "dataset.json").write_text(json.dumps(content))

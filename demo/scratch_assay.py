"""Converts the labelled scratch-assay recording of `ndev-sampledata` to a raw nnU-Net dataset.

The recording is one time lapse of ten frames, 210 x 576 pixels of 0.619 um, with a nuclear stain and oblique light.
Source: package ndev-sampledata 0.0.3 (BSD-3), file `scratch-assay-labeled-10T-2Ch.tiff`, axes CTYX.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile

from dinov3.utils.atomic_files import replace_when_complete, write_json
from nnunetv2.errors import DataError

PACKAGE = "ndev_sampledata"
RECORDING = "samples/scratch-assay-labeled-10T-2Ch.tiff"
DATASET = "Dataset071_ScratchAssay"
PIXEL_SIZE = 0.619  # micrometres
LABELS = {"background": 0, "cytoplasm": 1, "nucleus": 2}
NUM_FOLDS = 5


def find_recording() -> Path:
    """Locates the recording inside the installed package without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "The package ndev-sampledata with the demo recording is not installed; "
            "install it with: pip install --no-deps ndev-sampledata==0.0.3"
        )
    return Path(spec.submodule_search_locations[0]) / RECORDING


def label_map(nucleus_instances: np.ndarray, cell_instances: np.ndarray) -> np.ndarray:
    """Semantic labels of instance maps (any equal shape): cytoplasm where a cell is, nucleus on top."""
    semantic = np.where(cell_instances > 0, LABELS["cytoplasm"], LABELS["background"])
    return np.where(nucleus_instances > 0, LABELS["nucleus"], semantic).astype(np.uint8)


def block_splits(case_ids: list[str], num_folds: int = NUM_FOLDS) -> list[dict[str, list[str]]]:
    """Folds of consecutive frames: neighbours in time look alike, so a random split would leak test data."""
    blocks = [list(block) for block in np.array_split(sorted(case_ids), num_folds)]
    return [
        {
            "train": [str(case) for other in blocks if other is not block for case in other],
            "val": [str(case) for case in block],
        }
        for block in blocks
    ]


def convert(recording: Path, raw_root: Path) -> Path:
    """Writes images, labels, dataset.json and splits_final.json below `raw_root`; returns the dataset's folder."""
    stain, oblique, nuclei, cells = tifffile.imread(recording)
    folder = raw_root / DATASET
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    case_ids = [f"scratch_{frame:03d}" for frame in range(len(stain))]
    labels = label_map(nuclei, cells)
    for frame, case_id in enumerate(case_ids):
        for channel, images in enumerate((stain, oblique)):
            _write_nifti(images[frame].astype(np.float32), folder / "imagesTr" / f"{case_id}_{channel:04d}.nii.gz")
        _write_nifti(labels[frame], folder / "labelsTr" / f"{case_id}.nii.gz")
    write_json(
        {
            "channel_names": {"0": "H3342", "1": "oblique"},
            "labels": LABELS,
            "numTraining": len(case_ids),
            "file_ending": ".nii.gz",
        },
        folder / "dataset.json",
    )
    write_json(block_splits(case_ids), folder / "splits_final.json")
    return folder


def _write_nifti(image: np.ndarray, path: Path) -> None:
    volume = sitk.GetImageFromArray(image[None])
    volume.SetSpacing((PIXEL_SIZE, PIXEL_SIZE, 1.0))
    with replace_when_complete(path) as temporary:
        sitk.WriteImage(volume, str(temporary), useCompression=True)

"""Folders in the layouts that nnU-Net converts, and arguments of `generate_dataset_json`; needs neither nnU-Net."""

import gzip
import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np

TASK = "Task07_Ducts"
OLD_TASK = "Task027_Hearts"
SHAPE = (5, 6, 4)  # x, y, z
LABELS = {"0": "background", "1": "duct", "2": "stone"}
# turned about z, anisotropic, with an origin
AFFINE = np.array(
    [[0.6, -1.6, 0.0, -11.5], [0.8, 1.2, 0.0, 7.25], [0.0, 0.0, 3.0, 40.0], [0.0, 0.0, 0.0, 1.0]], dtype=np.float64
)

JSON_ARGUMENTS = {
    "plain": {
        "channel_names": {0: "CT"},
        "labels": {"background": 0, "liver": 1},
        "license": "CC0",
        "converted_by": "me",
    },
    "every_entry": {
        "channel_names": {0: "T1", 1: "rgb_to_0_1"},
        "labels": {"background": 0, "a": "1", "ignore": 2},
        "dataset_name": "name",
        "reference": "where",
        "release": "1.0",
        "description": "what",
        "overwrite_image_reader_writer": "NibabelIO",
        "license": "CC0",
        "converted_by": "me",
    },
    "regions": {
        "channel_names": {"0": "MR", "1": "noNorm"},
        "labels": {"background": 0, "whole": (1, 2), "core": [2]},
        "regions_class_order": (1, 2),
        "license": "CC0",
        "converted_by": "me",
        "dataset": {"case": {"images": ["a.png"], "label": "b.png"}},
        "anything": [1, {"é": None}],
    },
}


def write_msd_task(root: Path, name: str = TASK, num_channels: int = 2) -> Path:
    """Two training cases of each type that the Decathlon has, one test case, and files of macOS."""
    task = root / name
    for number, (folder, dtype) in enumerate(
        [("imagesTr", np.float32), ("imagesTr", np.int16), ("imagesTs", np.uint8)]
    ):
        shape = SHAPE if num_channels == 1 else (*SHAPE, num_channels)
        _write_image(task / folder / f"duct_{number}.nii.gz", shape, number, dtype)
        _junk(task / folder / f"._duct_{number}.nii.gz")
        if folder == "imagesTr":
            _write_image(task / "labelsTr" / f"duct_{number}.nii.gz", SHAPE, 10 + number, np.uint8, upper=3)
            _junk(task / "labelsTr" / f"._duct_{number}.nii.gz")
    channels = ["T2", "ADC", "DWI"][:num_channels]
    _write_json(
        task,
        {
            "name": "Ducts",
            "description": "made up",
            "licence": "CC0",
            "release": "1.0",
            "tensorImageSize": "4D",
            "modality": {str(index): channel for index, channel in enumerate(channels)},
            "labels": LABELS,
            "numTraining": 2,
            "numTest": 1,
            "training": [
                {"image": f"./imagesTr/duct_{n}.nii.gz", "label": f"./labelsTr/duct_{n}.nii.gz"} for n in "01"
            ],
            "test": ["./imagesTs/duct_2.nii.gz"],
        },
    )
    return task


def write_old_task(root: Path, name: str = OLD_TASK) -> Path:
    """A raw dataset of nnU-Net v1 with two channels and all the folders it may have."""
    task = root / name
    cases = {"Tr": ("a", "b_1"), "Ts": ("c",), "Val": ("d",)}
    for part, names in cases.items():
        for number, case in enumerate(names):
            for channel in range(2):
                image = task / f"images{part}" / f"{case}_{channel:04d}.nii.gz"
                _write_image(image, SHAPE, 10 * channel + number, np.int16)
            _write_image(task / f"labels{part}" / f"{case}.nii.gz", SHAPE, 20 + number, np.uint8, upper=3)
    _write_json(
        task,
        {
            "name": "Hearts",
            "description": "made up",
            "tensorImageSize": "4D",
            "reference": "none",
            "modality": {"0": "CT", "1": "PET"},
            "labels": LABELS,
            "numTraining": 2,
            "numTest": 1,
            "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases["Tr"]],
            "test": ["./imagesTs/c.nii.gz"],
        },
    )
    return task


def describe_folder(folder: Path) -> dict:
    """What is in every file below a folder: JSON as it is; of images the grid in space, the type and the voxels."""
    return {str(path.relative_to(folder)): _describe(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _describe(path: Path) -> dict:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    image = nibabel.load(path)
    voxels = np.ascontiguousarray(np.asanyarray(image.dataobj))
    return {
        "shape": list(voxels.shape),
        "dtype": str(image.get_data_dtype()),
        "affine": np.round(image.affine, 5).tolist(),
        "codes": [int(image.header["qform_code"]), int(image.header["sform_code"])],
        "voxels": hashlib.sha256(voxels.tobytes()).hexdigest()[:16],
    }


def _write_image(path: Path, shape: tuple, seed: int, dtype: type, upper: int = 200) -> None:
    """Random voxels; seeds with the same last digit lie on the same grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, upper, shape).astype(dtype)
    affine = AFFINE.copy()
    affine[:3, 3] += seed % 10
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _junk(path: Path) -> None:
    path.write_bytes(b"\x00\x05\x16\x07 not an image")


def _write_json(folder: Path, content: dict) -> None:
    (folder / "dataset.json").write_text(json.dumps(content))

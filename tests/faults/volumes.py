"""A raw dataset of six small volumes for tests that damage it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from dinov3.utils.atomic_files import write_json

NUMBER = "951"
DATASET = f"Dataset{NUMBER}_Faults"
CASES = [f"case_{letter}" for letter in "abcdef"]
SHAPE = (40, 40, 8)


def write_dataset(folder: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, case in enumerate(CASES):
        generator = np.random.default_rng(number)
        label = np.zeros(SHAPE, np.uint8)
        row = 4 + 3 * number
        label[row : row + 10, 6:20, 2:6] = 1
        image = label * 60 + generator.normal(100, 10, SHAPE)
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / "imagesTr" / f"{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"{case}.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    write_json(content, folder / "dataset.json")


def write_images(
    folder: Path,
    shape: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
    *,
    slice_axis: int | None = None,
) -> None:
    """Writes six images of any size; two axes become slices along the third, `slice_axis`, of 1 mm."""
    write_dataset(folder)
    spacing = spacing or (1.0,) * len(shape)
    for number, case in enumerate(CASES):
        image = np.random.default_rng(number).normal(100, 10, shape).astype(np.float32)
        label = (image > np.quantile(image, 0.6)).astype(np.uint8)
        label.ravel()[0] = 1  # some foreground, also in a single voxel
        lengths = spacing
        if slice_axis is not None:
            image, label = (np.expand_dims(array, slice_axis) for array in (image, label))
            lengths = (*spacing[:slice_axis], 1.0, *spacing[slice_axis:])
        affine = np.diag([*lengths, 1.0])
        nib.save(nib.Nifti1Image(image, affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"{case}.nii.gz")


def shape_of(path: Path) -> tuple[int, ...]:
    return tuple(nib.load(path).shape)

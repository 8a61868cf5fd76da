"""Rows 13, 14 and 22: voxels that are no numbers, labels on another grid, and images with four axes are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
from tests.faults import volumes
from tests.faults.conftest import one_line

CASE = volumes.CASES[2]
WORDS = ("-d", volumes.NUMBER, "-c", "3d_fullres", "-npfp", "1", "-np", "1", "--no_pbar")


def change(path: Path, change_voxels: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    voxels = change_voxels(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def with_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def changed(voxels: np.ndarray) -> np.ndarray:
        voxels[3, 4, 5] = value
        return voxels

    return changed


def unchanged(voxels: np.ndarray) -> np.ndarray:
    return voxels


@pytest.fixture(params=[True, False], ids=["verified", "not verified"])
def preprocess(request: pytest.FixtureRequest, run: Callable, few_draws: None) -> Callable[[], tuple[int, str]]:
    verification = ("--verify_dataset_integrity",) if request.param else ()
    return lambda: run(plan_and_preprocess_entry, *WORDS, *verification)


def stored_cases(nnunet_folders: dict[str, Path]) -> list[Path]:
    return list(nnunet_folders["nnUNet_preprocessed"].rglob("*.b2nd"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_voxels_that_are_no_numbers(
    value: float, reader: str, raw_volumes: Path, nnunet_folders: dict[str, Path], preprocess: Callable
) -> None:
    description = raw_volumes / "dataset.json"
    text = description.read_text().rstrip().removesuffix("}")
    description.write_text(f'{text}, "overwrite_image_reader_writer": "{reader}"}}')
    change(raw_volumes / "imagesTr" / f"{CASE}_0000.nii.gz", with_voxel(value))
    code, stderr = preprocess()
    assert code == 3
    one_line(stderr, CASE)
    assert stored_cases(nnunet_folders) == []


SHIFTED, TURNED, SPACED = np.eye(4), np.eye(4), np.diag([1, 1, 2, 1]).astype(float)
SHIFTED[0, 3] = 0.5
TURNED[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]


@pytest.mark.parametrize(
    ("cut", "affine"),
    [
        (lambda voxels: voxels[:-1], None),
        (unchanged, SPACED),
        (unchanged, SHIFTED),
        (unchanged, TURNED),
    ],
    ids=["shape", "spacing", "origin", "direction"],
)
def test_labels_on_another_grid(
    cut: Callable, affine: np.ndarray | None, raw_volumes: Path, nnunet_folders: dict[str, Path], run: Callable
) -> None:
    change(raw_volumes / "labelsTr" / f"{CASE}.nii.gz", cut, affine)
    code, stderr = run(plan_and_preprocess_entry, *WORDS, "--verify_dataset_integrity")
    assert code == 3
    one_line(stderr, CASE)
    assert stored_cases(nnunet_folders) == []


def test_images_with_four_axes(raw_volumes: Path, nnunet_folders: dict[str, Path], preprocess: Callable) -> None:
    path = raw_volumes / "imagesTr" / f"{CASE}_0000.nii.gz"
    change(path, lambda voxels: np.stack([voxels, voxels], axis=-1))
    code, stderr = preprocess()
    assert code == 3
    one_line(stderr, path.name)
    assert stored_cases(nnunet_folders) == []

"""The parts of the demonstration that can be checked without training."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage.io import imread

from demo.__main__ import dice
from demo.baselines import random_forest_segmentation, threshold_segmentation
from demo.overlays import COLOURS, OPACITY, painted, write_overlay
from demo.scratch_assay import DATASET, PIXEL_SIZE, block_splits, convert, find_recording, label_map
from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import DataError


def synthetic_frame(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright nucleus in a textured cell: image (2, 60, 80) and labels (60, 80)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:60, :80]
    labels = np.zeros((60, 80), np.uint8)
    labels[np.hypot(rows - 30, columns - 40) < 22] = 1
    labels[np.hypot(rows - 30, columns - 40) < 9] = 2
    stain = 100 + 900 * (labels == 2) + generator.normal(0, 20, labels.shape)
    light = 5000 + generator.normal(0, 1, labels.shape) * np.where(labels > 0, 600, 20)
    return np.stack([stain, light]).astype(np.float32), labels


def test_nucleus_lies_on_top_of_the_cell() -> None:
    nuclei = np.array([[0, 7, 7], [0, 0, 3]])
    cells = np.array([[0, 5, 0], [9, 0, 0]])
    assert label_map(nuclei, cells).tolist() == [[0, 2, 2], [1, 0, 2]]


def test_folds_are_blocks_of_consecutive_frames() -> None:
    cases = [f"c{i}" for i in range(10)]
    splits = block_splits(cases)
    assert [split["val"] for split in splits] == [[f"c{2 * k}", f"c{2 * k + 1}"] for k in range(5)]
    assert all(sorted(split["train"] + split["val"]) == cases for split in splits)


def test_conversion_writes_a_raw_dataset(tmp_path: Path) -> None:
    recording = np.zeros((4, 3, 8, 9), np.uint16)
    recording[0] = np.arange(8 * 9).reshape(8, 9)
    recording[2, :, 2:4, 2:4] = 1
    recording[3, :, 1:6, 1:6] = 4
    tifffile.imwrite(tmp_path / "recording.tiff", recording, photometric="minisblack")

    folder = convert(tmp_path / "recording.tiff", tmp_path)

    assert folder == tmp_path / DATASET
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == [
        f"scratch_{i:03d}.nii.gz" for i in range(3)
    ]
    image = sitk.ReadImage(str(folder / "imagesTr" / "scratch_001_0000.nii.gz"))
    assert image.GetSpacing()[:2] == pytest.approx((PIXEL_SIZE, PIXEL_SIZE))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[0], recording[0, 1])
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "scratch_002.nii.gz")))[0]
    assert np.bincount(labels.ravel()).tolist() == [72 - 25, 21, 4]
    assert read_json(folder / "dataset.json")["numTraining"] == 3


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps ndev-sampledata"):
        find_recording()


def test_baselines_find_cell_and_nucleus() -> None:
    frames, labels = zip(*(synthetic_frame(seed) for seed in range(3)), strict=True)
    threshold = threshold_segmentation(frames[2])
    forest = random_forest_segmentation(list(frames[:2]), list(labels[:2]), [frames[2]])[0]
    for prediction in (threshold, forest):
        assert dice(prediction == 2, labels[2] == 2) > 0.85
        assert dice(prediction == 1, labels[2] == 1) > 0.6


def test_dice_by_hand() -> None:
    a = np.array([True, True, False, False])
    b = np.array([True, False, True, False])
    assert dice(a, b) == 0.5
    assert np.isnan(dice(np.zeros(3, bool), np.zeros(3, bool)))


def test_overlay_paints_labels_and_leaves_the_background(tmp_path: Path) -> None:
    frame, labels = synthetic_frame(0)
    grey = np.full((60, 80, 3), 0.5)
    picture = painted(grey, labels)
    np.testing.assert_array_equal(picture[labels == 0], grey[labels == 0])
    np.testing.assert_allclose(picture[30, 40], (1 - OPACITY) * 0.5 + OPACITY * np.array(COLOURS[2]))

    write_overlay(frame, labels, labels, "case", tmp_path / "case.png")
    written = imread(tmp_path / "case.png")
    assert written.shape[0] > 3 * 60
    assert written.std() > 10

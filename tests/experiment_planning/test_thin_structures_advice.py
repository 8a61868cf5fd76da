"""Planning says which class is too thin for heads at a quarter of the resolution, and what to set."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset, plan_experiment_dataset
from nnunetv2.experiment_planning.thin_structures_advice import advise_on_thin_structures


def advice(
    raw: Path, drawing: np.ndarray, caplog: pytest.LogCaptureFixture, file_ending: str = ".png", **declared: object
) -> list[str]:
    """Plans a dataset of four equal cases; returns the lines on thin structures."""
    dataset = raw / "Dataset005_Lines"
    for folder in ("imagesTr", "labelsTr"):
        (dataset / folder).mkdir(parents=True)
    for case in range(4):
        for file in (dataset / "imagesTr" / f"c{case}_0000", dataset / "labelsTr" / f"c{case}"):
            pixels = drawing if file.parent.name == "labelsTr" else (drawing * 50 + case).astype(np.uint8)
            if file_ending == ".png":
                Image.fromarray(pixels).save(f"{file}.png")
            else:
                nibabel.save(nibabel.Nifti1Image(np.stack([pixels] * 8), np.eye(4)), f"{file}{file_ending}")
    names = {"labels": {"background": 0, "line": 1, "square": 2}, **declared}
    content = {"channel_names": {"0": "grey"}, "numTraining": 4, "file_ending": file_ending, **names}
    (dataset / "dataset.json").write_text(json.dumps(content))
    extract_fingerprint_dataset(5, num_processes=1)
    with caplog.at_level(logging.INFO):
        plan_experiment_dataset(5)
    return [record.getMessage() for record in caplog.records if "pixels wide" in record.getMessage()]


def drawn(thickness: int) -> np.ndarray:
    """A line (1) of a thickness, and a square (2) of 24 pixels, on 64 x 64."""
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[6 : 6 + thickness, 4:60] = 1
    labels[30:54, 30:54] = 2
    return labels


def test_the_thinnest_class_is_named_with_ceiling_and_setting(nnunet_folders, caplog):
    (line,) = advice(nnunet_folders["nnUNet_raw"], drawn(1), caplog)
    assert line.startswith(
        "line is 1 pixels wide (median of 4 cases), and perfect shares per cell of 4 pixels reach a Di"
    )
    assert float(re.search(r"Dice of (\S+) on", line)[1]) < 0.1
    assert "model.input_scale=4 (16 times the tokens)" in line


def test_the_scale_is_no_larger_than_needed(nnunet_folders, caplog):
    (line,) = advice(nnunet_folders["nnUNet_raw"], drawn(3), caplog)
    assert line.startswith("line is 3 pixels wide")
    assert "model.input_scale=2 (4 times the tokens)" in line


def test_wide_classes_need_no_advice(nnunet_folders, caplog):
    assert advice(nnunet_folders["nnUNet_raw"], drawn(9), caplog) == []


def test_what_cells_represent_needs_no_advice(nnunet_folders, caplog):
    drawing = drawn(9)
    drawing[drawing == 1] = 0
    drawing[8:12, 4:60] = 1  # as wide as a cell, and on the grid
    assert advice(nnunet_folders["nnUNet_raw"], drawing, caplog) == []


def test_ignored_pixels_are_no_structure(nnunet_folders, caplog):
    labels = {"background": 0, "line": 1, "square": 2, "ignore": 3}
    drawing = drawn(9)
    drawing[60] = 3
    assert advice(nnunet_folders["nnUNet_raw"], drawing, caplog, labels=labels) == []


def test_volumes_are_left_to_the_training(nnunet_folders, caplog):
    assert advice(nnunet_folders["nnUNet_raw"], drawn(1), caplog, ".nii.gz") == []


def test_a_label_map_that_cannot_be_read_does_not_stop_planning(nnunet_folders, caplog):
    advice(nnunet_folders["nnUNet_raw"], drawn(1), caplog)
    plans = json.loads((nnunet_folders["nnUNet_preprocessed"] / "Dataset005_Lines" / "nnUNetPlans.json").read_text())
    dataset = nnunet_folders["nnUNet_raw"] / "Dataset005_Lines"
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        content = json.loads((dataset / "dataset.json").read_text())
        advise_on_thin_structures(plans, content, {"c0": {"label": str(dataset / "labelsTr" / "missing.png")}})
    assert "cannot be measured" in caplog.text

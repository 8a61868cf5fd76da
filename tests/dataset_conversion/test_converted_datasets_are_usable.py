"""What is converted here goes through the check of a dataset, planning and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage import io

from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset
from nnunetv2.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
from nnunetv2.utilities.overlay_plots import entry_point_generate_overlay
from tests.recorded.conversion_cases import write_msd_task, write_old_task


def write_own_dataset(root: Path) -> None:
    """As a user's script would: colour photographs, regions and a class that is to be ignored."""
    random = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in ("one", "two"):
        photo = random.integers(0, 255, (24, 20, 3)).astype(np.uint8)
        io.imsave(root / "imagesTr" / f"{case}_0000.png", photo, check_contrast=False)
        labels = random.integers(0, 4, (24, 20)).astype(np.uint8)
        io.imsave(root / "labelsTr" / f"{case}.png", labels, check_contrast=False)
    generate_dataset_json(
        root,
        channel_names={0: "rgb_to_0_1", 1: "rgb_to_0_1", 2: "rgb_to_0_1"},
        labels={"background": 0, "cell": (1, 2), "nucleus": 2, "ignore": 3},
        num_training_cases=2,
        file_ending=".png",
        regions_class_order=(1, 2),
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["decathlon", "old", "own"])
def test_a_converted_dataset_is_planned_and_preprocessed(layout, nnunet_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetFingerprintExtractor, "num_foreground_voxels_for_intensitystats", 1e4)
    if layout == "decathlon":
        convert_msd_dataset(write_msd_task(tmp_path), 27, 1)
    elif layout == "old":
        convert(write_old_task(tmp_path), "Dataset027_Hearts")
    else:
        write_own_dataset(nnunet_folders["nnUNet_raw"] / "Dataset027_Cells")
    options = ["-c", "2d", "-np", "1", "-npfp", "1", "--no_pbar"]
    assert plan_and_preprocess_entry(["-d", "27", "--verify_dataset_integrity", *options]) == 0
    (dataset,) = nnunet_folders["nnUNet_preprocessed"].iterdir()
    cases = sorted(path.stem for path in (dataset / "nnUNetPlans_2d").glob("*.pkl"))
    assert len(cases) == json.loads((dataset / "dataset.json").read_text())["numTraining"] == 2
    assert entry_point_generate_overlay(["-d", "27", "-o", str(tmp_path / "pictures"), "-c", "2d", "-np", "1"]) == 0
    assert sorted(path.stem for path in (tmp_path / "pictures").iterdir()) == cases

"""Predictions of upstream's recorded checkpoints equal upstream's recorded predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.restricted_pickle import load_restricted

EQUAL_VOXELS = 0.9999
PROBABILITY_TOLERANCE = 1e-3

DATASETS = [
    pytest.param("Dataset901_Syn2DRGB", "2d_tiny", id="901"),
    pytest.param("Dataset902_Syn3DAnisoCT", "3d_tiny", id="902", marks=pytest.mark.slow),
    pytest.param("Dataset903_SynMRIRegions", "3d_tiny", id="903"),
    pytest.param("Dataset904_SynIgnore", "3d_tiny", id="904"),
]


def predictor_of(recorded: Path, dataset: str, configuration: str) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    folder = recorded / "results" / dataset / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    predictor.initialize_from_trained_model_folder(folder, (0,))
    return predictor


def assert_same_prediction(predictor: nnUNetPredictor, folder: Path, reference: Path) -> None:
    """Compares segmentations, geometry and probabilities of all cases in two folders."""
    reader = predictor.plans_manager.image_reader_writer_class()
    ending = predictor.dataset_json["file_ending"]
    cases = sorted(path.stem for path in reference.glob("*.npz"))
    assert cases
    for case in cases:
        segmentation, properties = reader.read_seg(str(folder / (case + ending)))
        reference_segmentation, reference_properties = reader.read_seg(str(reference / (case + ending)))
        assert (segmentation == reference_segmentation).mean() >= EQUAL_VOXELS
        assert properties == reference_properties
        with np.load(folder / f"{case}.npz") as ours, np.load(reference / f"{case}.npz") as theirs:
            assert ours["probabilities"].dtype == theirs["probabilities"].dtype
            np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], atol=PROBABILITY_TOLERANCE)
        ours, theirs = (load_restricted(where / f"{case}.pkl") for where in (folder, reference))
        assert set(ours) == set(theirs)
        assert [list(map(int, side)) for side in ours["bbox_used_for_cropping"]] == [
            list(map(int, side)) for side in theirs["bbox_used_for_cropping"]
        ]


@pytest.mark.oracle
@pytest.mark.parametrize(("dataset", "configuration"), DATASETS)
def test_test_cases(dataset: str, configuration: str, oracle_recorded: Path, tmp_path: Path) -> None:
    predictor = predictor_of(oracle_recorded, dataset, configuration)
    predictor.predict_from_files_sequential(
        str(oracle_recorded / "raw" / dataset / "imagesTs"), str(tmp_path), save_probabilities=True
    )
    number = dataset[len("Dataset") : len("Dataset901")]
    assert_same_prediction(predictor, tmp_path, oracle_recorded / "pred" / f"{number}_{configuration}")


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "configuration"), DATASETS)
def test_validation_cases(dataset: str, configuration: str, oracle_recorded: Path, tmp_path: Path) -> None:
    """The training images, predicted anew from the raw files, equal what upstream's trainer wrote in validation."""
    predictor = predictor_of(oracle_recorded, dataset, configuration)
    folder = oracle_recorded / "results" / dataset / f"nnUNetTrainer__nnUNetPlans__{configuration}" / "fold_0"
    images = oracle_recorded / "raw" / dataset / "imagesTr"
    cases = sorted(path.stem for path in (folder / "validation").glob("*.npz"))
    inputs = [sorted(map(str, images.glob(f"{case}_????.*"))) for case in cases]
    outputs = [str(tmp_path / case) for case in cases]
    predictor.predict_from_files_sequential(inputs, outputs, save_probabilities=True)
    reader = predictor.plans_manager.image_reader_writer_class()
    ending = predictor.dataset_json["file_ending"]
    for case in cases:
        ours, _ = reader.read_seg(str(tmp_path / (case + ending)))
        theirs, _ = reader.read_seg(str(folder / "validation" / (case + ending)))
        assert (ours == theirs).mean() >= EQUAL_VOXELS
        with np.load(tmp_path / f"{case}.npz") as a, np.load(folder / "validation" / f"{case}.npz") as b:
            np.testing.assert_allclose(a["probabilities"], b["probabilities"], atol=PROBABILITY_TOLERANCE)

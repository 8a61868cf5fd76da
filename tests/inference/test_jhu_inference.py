"""One binary file per class, as upstream writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2.errors import DataError
from nnunetv2.inference.JHU_inference import JHUPredictor, export_prediction_from_logits_singleFiles
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.processes.case_failures import PartialPredictionError
from tests.inference.tiny_models import CPU, IMAGES, model_folder, tiny_predictor
from tests.recorded.single_file_cases import DATASET_JSON, MODEL, PROPERTIES, logits

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "single_files.npz"


def export(output: Path, dataset_json: dict | str, **options) -> None:
    plans = PlansManager(MODEL / "plans.json")
    configuration = plans.get_configuration("3d_fullres")
    export_prediction_from_logits_singleFiles(
        logits(), PROPERTIES, configuration, plans, dataset_json, str(output), **options
    )


def files(folder: Path) -> dict[str, np.ndarray]:
    images = {str(path.relative_to(folder)): sitk.ReadImage(str(path)) for path in folder.rglob("*.nii.gz")}
    return {name: sitk.GetArrayFromImage(image) for name, image in images.items()}


def predictor() -> JHUPredictor:
    made = JHUPredictor(device=CPU, allow_tqdm=False, use_mirroring=False)
    made.initialize_from_trained_model_folder(model_folder("3d_fullres"), (0,))
    return made


@pytest.mark.oracle
def test_files_equal_upstreams(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    export(tmp_path / "case", str(tmp_path / "dataset.json"), save_probabilities=True)
    with np.load(RECORDED) as arrays:
        recorded = dict(arrays)
    with np.load(tmp_path / "case.npz") as content:
        np.testing.assert_allclose(content["probabilities"], recorded.pop("probabilities"), atol=1e-3)
    ours = files(tmp_path)
    assert sorted(ours) == sorted(recorded)
    for name, voxels in recorded.items():
        np.testing.assert_array_equal(ours[name], voxels)
        assert ours[name].dtype == np.uint8
    assert (tmp_path / "case.pkl").is_file()


def test_a_region_is_all_that_its_labels_cover(tmp_path):
    """Upstream fails with regions."""
    labels = {"background": 0, "all": [1, 2, 3], "core": [2, 3], "edge": 3, "ignore": 4}
    export(tmp_path / "case", DATASET_JSON | {"labels": labels, "regions_class_order": [1, 2, 3]})
    parts = files(tmp_path / "case" / "predictions")
    assert sorted(parts) == ["all.nii.gz", "core.nii.gz", "edge.nii.gz"]
    whole, core, edge = (parts[f"{name}.nii.gz"] for name in ("all", "core", "edge"))
    assert whole.sum() > core.sum() > edge.sum() > 0
    assert (whole >= core).all()
    assert (core >= edge).all()


def test_a_class_name_that_leads_elsewhere_is_refused(tmp_path):
    with pytest.raises(DataError, match="'../x' cannot be the name"):
        export(tmp_path / "case", DATASET_JSON | {"labels": {"background": 0, "a": 1, "../x": 2}})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_predictor_splits_what_the_usual_one_predicts(tmp_path):
    source = str(IMAGES / "case_0000.nii.gz")
    usual = tiny_predictor(use_mirroring=False)
    (segmentation,) = usual.predict_from_files([[source]], None)
    predictor().predict_from_files([[source]], [str(tmp_path / "case")])
    parts = files(tmp_path / "case" / "predictions")
    for label, name in enumerate(("one", "two"), start=1):
        np.testing.assert_array_equal(parts.pop(f"{name}.nii.gz"), segmentation == label)
    assert not parts
    (returned,) = predictor().predict_from_files([[source]], None)
    np.testing.assert_array_equal(returned, segmentation)


@pytest.mark.slow
def test_a_damaged_case_does_not_stop_the_others(tmp_path):
    for case in ("a", "b"):
        shutil.copy(IMAGES / "case_0000.nii.gz", tmp_path / f"{case}_0000.nii.gz")
    (tmp_path / "a_0000.nii.gz").write_bytes(b"no image")
    sources = [[str(tmp_path / f"{case}_0000.nii.gz")] for case in ("a", "b")]
    with pytest.raises(PartialPredictionError, match="1 of 2 cases failed: a .*; the others are complete"):
        predictor().predict_from_files(sources, [str(tmp_path / "out" / case) for case in ("a", "b")])
    assert sorted(files(tmp_path / "out")) == ["b/predictions/one.nii.gz", "b/predictions/two.nii.gz"]
    assert list(json.loads((tmp_path / "out" / "failures.json").read_text())) == ["a"]


class Loader:
    """Without cases, and with the method by which loaders of batchgenerators end their workers."""

    is_finished = False

    def __iter__(self):
        return iter(())

    def _finish(self):
        self.is_finished = True


@pytest.mark.parametrize("make_predictor", [tiny_predictor, predictor])
def test_workers_of_a_loader_end_with_the_prediction(make_predictor):
    loader = Loader()
    assert make_predictor().predict_from_data_iterator(loader) == []
    assert loader.is_finished

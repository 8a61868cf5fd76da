"""Preprocessing against numbers and files that upstream made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tests.recorded import make_preprocessing

RECORDED = Path(make_preprocessing.__file__).with_name("preprocessing.npz")


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED) as content:
        return dict(content)


@pytest.mark.parametrize("part", ["resampled", "preprocessed", "chunk_shapes", "drawn_locations"])
def test_results_equal_upstreams(part, recorded):
    ours = getattr(make_preprocessing, part)()
    assert set(ours) <= set(recorded)
    for name, value in ours.items():
        expected = recorded[name]
        assert value.dtype == expected.dtype or value.dtype.kind == "U", name
        if name.endswith("properties"):
            assert json.loads(str(value)) == json.loads(str(expected)), name
        elif value.dtype.kind == "f":
            np.testing.assert_allclose(value, expected, atol=2e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(value, expected, err_msg=name)


def test_nothing_of_the_recording_is_left_out(recorded):
    assert set(make_preprocessing.everything()) == set(recorded)


DATASETS = [
    ("Dataset901_Syn2DRGB", "2d"),
    ("Dataset902_Syn3DAnisoCT", "2d"),
    ("Dataset902_Syn3DAnisoCT", "3d_fullres"),
    ("Dataset903_SynMRIRegions", "3d_fullres"),
    ("Dataset904_SynIgnore", "3d_fullres"),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("dataset", "configuration"), DATASETS)
def test_stored_cases_equal_upstreams(dataset, configuration, oracle_recorded, tmp_path):
    folder = oracle_recorded / "preprocessed" / dataset
    plans = PlansManager(folder / "nnUNetPlans.json")
    dataset_json = json.loads((folder / "dataset.json").read_text())
    cases = get_filenames_of_train_images_and_targets(oracle_recorded / "raw" / dataset, dataset_json)
    manager = plans.get_configuration(configuration)
    upstream = nnUNetDatasetBlosc2(str(folder / manager.data_identifier))
    assert upstream.identifiers == sorted(cases)
    for case in upstream.identifiers[:3]:
        DefaultPreprocessor(verbose=False).run_case_save(
            str(tmp_path / case), cases[case]["images"], cases[case]["label"], plans, manager, dataset_json
        )
        _assert_same_case(nnUNetDatasetBlosc2(str(tmp_path))[case], upstream[case])


def _assert_same_case(ours, theirs):
    for array, expected in zip(ours[:2], theirs[:2], strict=True):
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert (array.chunks, array.blocks) == (expected.chunks, expected.blocks)
        assert array.schunk.cparams.filters == expected.schunk.cparams.filters
        np.testing.assert_allclose(array[:], expected[:], rtol=0, atol=1e-5 if array.dtype == np.float32 else 0)
    properties, expected_properties = dict(ours[3]), dict(theirs[3])
    locations, expected_locations = properties.pop("class_locations"), expected_properties.pop("class_locations")
    assert properties == expected_properties
    assert list(locations) == list(expected_locations)
    for key, voxels in locations.items():
        np.testing.assert_array_equal(voxels, expected_locations[key])
        assert np.asarray(voxels).dtype == np.asarray(expected_locations[key]).dtype

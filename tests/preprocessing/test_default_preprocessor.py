"""Preprocessing of whole cases and datasets (numbers are compared with upstream's in test_upstream_equality)."""

from __future__ import annotations

import copy
import json

import nibabel
import numpy as np
import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.processes import case_pool
from tests.recorded.make_preprocessing import DATASET_JSONS, PLANS, case, wave

DATASET_JSON = {
    **DATASET_JSONS["labels"],
    "channel_names": {"0": "CT", "1": "T1"},
    "file_ending": ".nii.gz",
    "numTraining": 3,
}
NAME = "Dataset001_Waves"


@pytest.fixture
def dataset(nnunet_folders):
    """Three two-channel cases with a plans file."""
    raw, preprocessed = (nnunet_folders[root] / NAME for root in ("nnUNet_raw", "nnUNet_preprocessed"))
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    image, seg, properties = case()
    affine = np.diag([*properties["spacing"][::-1], 1])
    for name in ("a", "b", "c"):
        for channel in range(2):
            nibabel.save(nibabel.Nifti1Image(image[channel].T, affine), raw / f"imagesTr/{name}_{channel:04d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(seg[0].T.astype(np.uint8), affine), raw / f"labelsTr/{name}.nii.gz")
    plans = {**PLANS, "image_reader_writer": "SimpleITKIO"}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return raw, preprocessed


def overwrite(file, array):
    nibabel.save(nibabel.Nifti1Image(array, nibabel.load(file).affine), file)


def preprocessor():
    made = DefaultPreprocessor(verbose=False)
    made.show_progress_bar = False
    return made


@pytest.mark.parametrize("num_processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_run_stores_every_case_and_deletes_older_ones(num_processes, dataset, monkeypatch):
    monkeypatch.setattr(case_pool, "_FEW_BYTES", 0)  # workers at once
    _, preprocessed = dataset
    folder = preprocessed / "nnUNetPlans_3d_fullres"
    folder.mkdir()
    (folder / "old.b2nd").touch()
    preprocessor().run(1, "3d_fullres", "nnUNetPlans", num_processes)
    stored = nnUNetDatasetBlosc2(str(folder))
    assert stored.identifiers == ["a", "b", "c"]
    plans = PlansManager(PLANS)
    data, seg, properties = preprocessor().run_case_npy(
        *case(), plans, plans.get_configuration("3d_fullres"), DATASET_JSON
    )
    for name in stored.identifiers:
        loaded, loaded_seg, _, loaded_properties = stored[name]
        np.testing.assert_allclose(loaded[:], data, atol=1e-5)
        np.testing.assert_array_equal(loaded_seg[:], seg)
        assert (loaded.dtype, loaded_seg.dtype) == (np.float32, np.int16)
        np.testing.assert_array_equal(loaded_properties["class_locations"][1], properties["class_locations"][1])


def test_inputs_are_not_changed():
    data, seg, properties = case()
    kept = copy.deepcopy((data, seg, properties, PLANS))
    plans = PlansManager(PLANS)
    preprocessor().run_case_npy(
        data, seg, properties, plans, plans.get_configuration("3d_fullres"), DATASET_JSONS["ignore"]
    )
    np.testing.assert_array_equal(data, kept[0])
    np.testing.assert_array_equal(seg, kept[1])
    assert (properties, PLANS) == kept[2:]


def preprocessed(case, **changes):
    plans = PlansManager({**PLANS, **changes})
    return preprocessor().run_case_npy(*case, plans, plans.get_configuration("3d_fullres"), DATASET_JSON)


def test_axes_are_put_into_the_order_of_the_plans():
    """An order that does not undo itself: the last axis of the file becomes the first."""
    data, seg, properties = case()
    turned = data.transpose(0, 3, 1, 2), seg.transpose(0, 3, 1, 2), {"spacing": np.roll(properties["spacing"], 1)}
    found = preprocessed((data, seg, properties), transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    expected = preprocessed(turned, transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    for array, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(array, other)
    assert found[2]["shape_before_cropping"] == turned[0].shape[1:]


@pytest.mark.parametrize("scheme", ["CTNormalization", "ZScoreNormalization"])
def test_each_channel_has_its_own_values_statistics_and_mask(scheme):
    """Two channels of one scheme: exchanged with all that belongs to them, they give exchanged results."""
    data, seg, properties = case()
    statistics = PLANS["foreground_intensity_properties_per_channel"]
    configuration = {**PLANS["configurations"]["3d_fullres"], "normalization_schemes": [scheme] * 2}
    results = []
    for channels in ([0, 1], [1, 0]):
        masks = [PLANS["configurations"]["3d_fullres"]["use_mask_for_norm"][channel] for channel in channels]
        result, _, _ = preprocessed(
            (data[channels], seg, properties),
            configurations={"3d_fullres": {**configuration, "use_mask_for_norm": masks}},
            foreground_intensity_properties_per_channel={
                str(place): statistics[str(channel)] for place, channel in enumerate(channels)
            },
        )
        results.append(result[channels])
    np.testing.assert_array_equal(*results)


def test_a_case_to_predict_gets_its_nonzero_region_as_labels():
    data, _, properties = case()
    plans = PlansManager(PLANS)
    _, region, properties = preprocessor().run_case_npy(
        data, None, properties, plans, plans.get_configuration("3d_fullres"), DATASET_JSON
    )
    assert region.dtype == np.int8 and set(np.unique(region)) <= {-1, 0}
    assert "class_locations" not in properties


def test_labels_above_127_are_kept():
    data, seg, properties = case()
    seg[seg == 2] = 200
    plans = PlansManager(PLANS)
    labels = {"labels": {"background": 0, **{str(i): i for i in range(1, 201)}}}
    _, result, _ = preprocessor().run_case_npy(
        data, seg, properties, plans, plans.get_configuration("3d_fullres"), labels
    )
    assert result.dtype == np.int16 and result.max() == 200


class OnlyFirstSlice(DefaultPreprocessor):
    def modify_seg_fn(self, seg, plans_manager, dataset_json, configuration_manager):
        seg = seg.copy()
        seg[:, 1:] = 0
        return seg


def test_a_subclass_may_change_the_labels():
    plans = PlansManager(PLANS)
    _, seg, properties = OnlyFirstSlice(False).run_case_npy(
        *case(), plans, plans.get_configuration("3d_fullres"), DATASET_JSON
    )
    assert (seg[:, 1:] == 0).all()
    assert properties["class_locations"][1][:, 1].max() > 0  # locations are those of the labels as they were


def test_shape_mismatch_names_both_files_and_shapes(dataset):
    raw, _ = dataset
    overwrite(raw / "labelsTr/b.nii.gz", np.zeros((5, 6, 7), np.uint8))
    with pytest.raises(DataError, match=r"Case b: .*b_0000\.nii\.gz.* 12 x 9 x 14 .*b\.nii\.gz has 7 x 6 x 5"):
        preprocessor().run(NAME, "3d_fullres", "nnUNetPlans", 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(value, dataset):
    raw, _ = dataset
    image = wave((14, 9, 12)).astype(np.float32)
    image[3, 4, 5:7] = value
    overwrite(raw / "imagesTr/c_0001.nii.gz", image)
    with pytest.raises(DataError, match=r"Case c: .*c_0001\.nii\.gz has 2 voxels that are NaN or infinite"):
        preprocessor().run(NAME, "3d_fullres", "nnUNetPlans", 1)


def test_wrong_number_of_channels_is_refused(dataset):
    raw, _ = dataset
    (raw / "imagesTr/a_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"Case a: a has no _0001 \(T1\); 2 channels are needed \(CT, T1\)"):
        preprocessor().run(NAME, "3d_fullres", "nnUNetPlans", 1)


def test_missing_plans_and_datasets_are_refused(dataset):
    with pytest.raises(UsageError, match=r"There are no plans .*otherPlans\.json; make them"):
        preprocessor().run(NAME, "3d_fullres", "otherPlans", 1)
    with pytest.raises(UsageError, match="no configuration '3d_lowres'"):
        preprocessor().run(NAME, "3d_lowres", "nnUNetPlans", 1)

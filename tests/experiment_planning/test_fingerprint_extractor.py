from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from tests.experiment_planning.tiny_dataset import NAME, SHAPES, write_image, write_tiny_dataset

RECORDED = Path(__file__).parents[1] / "recorded" / "planning_fingerprint.json"
INTENSITIES = "foreground_intensity_properties_per_channel"
FEW_DRAWS = 1e5


@pytest.fixture
def extractor(nnunet_folders) -> DatasetFingerprintExtractor:
    write_tiny_dataset(nnunet_folders["nnUNet_raw"])
    extractor = DatasetFingerprintExtractor(17, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = FEW_DRAWS
    return extractor


def assert_same_fingerprint(ours: dict, theirs: dict) -> None:
    assert set(ours) == set(theirs)
    for key in set(theirs) - {INTENSITIES}:
        assert ours[key] == theirs[key]
    assert set(ours[INTENSITIES]) == set(theirs[INTENSITIES])
    for channel, statistics in theirs[INTENSITIES].items():
        assert ours[INTENSITIES][channel] == pytest.approx(statistics, rel=1e-5)


def test_fingerprint_equals_upstreams(extractor):
    assert_same_fingerprint(extractor.run(), json.loads(RECORDED.read_text()))


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("dataset_id", [901, 902, 903, 904])
def test_fingerprint_of_recorded_datasets_equals_upstreams(dataset_id, oracle_recorded, nnunet_folders, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(oracle_recorded / "raw"))
    extractor = DatasetFingerprintExtractor(dataset_id, num_processes=1)
    recorded = oracle_recorded / "preprocessed" / extractor.dataset_name / "dataset_fingerprint.json"
    assert_same_fingerprint(extractor.run(), json.loads(recorded.read_text()))


def test_draws_are_those_of_choice_whatever_the_pieces(monkeypatch):
    monkeypatch.setattr(fingerprint_extractor, "_MIN_DRAWS_AT_ONCE", 7)
    monkeypatch.setattr(fingerprint_extractor, "_MAX_DRAWS_AT_ONCE", 64)
    ours, theirs = np.random.RandomState(1234), np.random.RandomState(1234)
    for population, num_samples in ((1, 50), (5, 50), (1000, 333), (40, 0)):
        counts = fingerprint_extractor._draw_counts(ours, population, num_samples)
        expected = theirs.choice(np.arange(population), num_samples, replace=True)
        np.testing.assert_array_equal(counts, np.bincount(expected, minlength=population))


def test_channels_are_drawn_from_one_stream():
    segmentation = np.ones((1, 4, 5, 6), dtype=np.float32)
    images = np.random.RandomState(0).normal(0, 1, (2, 4, 5, 6)).astype(np.float32)
    distributions = DatasetFingerprintExtractor.collect_foreground_intensities(segmentation, images, num_samples=99)
    random_state = np.random.RandomState(1234)
    for distribution, image in zip(distributions, images, strict=True):
        values, counts = distribution.distinct()
        np.testing.assert_array_equal(np.repeat(values, counts), np.sort(random_state.choice(image.ravel(), 99)))


def test_existing_fingerprint_is_kept_unless_overwritten(extractor):
    extractor.run()
    written = Path(fingerprint_extractor.nnUNet_preprocessed, NAME, "dataset_fingerprint.json")
    mine = {**json.loads(written.read_text()), "median_relative_size_after_cropping": 0.125}
    written.write_text(json.dumps(mine))
    assert extractor.run() == mine
    assert extractor.run(overwrite_existing=True) != mine
    assert json.loads(written.read_text()) != mine


def test_failure_leaves_an_existing_fingerprint_alone(extractor):
    fingerprint = extractor.run()
    Path(extractor.dataset["case_1"]["label"]).write_bytes(b"damaged")
    with pytest.raises(DataError, match="case_1.nii.gz"):
        extractor.run(overwrite_existing=True)
    assert extractor.run() == fingerprint


def test_subclasses_may_analyse_cases_in_their_own_way(extractor):
    class WholeImages(DatasetFingerprintExtractor):
        @staticmethod
        def analyze_case(*args):
            return DatasetFingerprintExtractor.analyze_case(*args)._replace(shape_after_crop=(1, 2, 3))

    extractor.__class__ = WholeImages
    assert extractor.run()["shapes_after_crop"] == [[1, 2, 3]] * len(SHAPES)


def test_nan_is_refused_and_the_file_named(extractor):
    image = Path(extractor.dataset["case_2"]["images"][0])
    image.unlink()
    broken = image.with_name("case_2_0000.nrrd")  # in NIfTI files SimpleITK would replace NaN by 0
    write_image(broken, np.full(SHAPES[2], np.nan, dtype=np.float32), (3.0, 1.0, 0.9))
    extractor.dataset["case_2"]["images"][0] = str(broken)
    with pytest.raises(DataError, match="the image holds NaN.*case_2_0000.nrrd"):
        extractor.run()


def test_other_number_of_channels_is_refused(extractor):
    extractor.dataset["case_1"]["images"].pop()
    with pytest.raises(DataError, match="Case case_1 has 1 channels; dataset.json names 2"):
        extractor.run()


def test_other_shape_of_the_label_is_refused(extractor):
    extractor.dataset["case_0"]["label"] = extractor.dataset["case_1"]["label"]
    with pytest.raises(DataError, match=r"Shapes differ, \(8, 14, 12\) voxels in .* against \(9, 13, 12\) in"):
        extractor.run()


def test_dataset_without_foreground_is_refused(extractor):
    only = "case_3"
    extractor.dataset = {only: extractor.dataset[only]}
    with pytest.raises(DataError, match="has a labelled voxel"):
        extractor.run()

import numpy as np
import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.restricted_pickle import load_restricted
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tests.recorded.make_utilities_imageio import read_and_write, write_images
from tests.utilities.recorded_answers import recorded


@pytest.mark.parametrize("name", recorded("readers"))
def test_arrays_properties_and_written_files_are_upstreams(tmp_path, name):
    """Arrays bit by bit (as digests), properties, and how another library sees a label map that we wrote."""
    reader, file = name.split()
    stem, _, ending = file.partition(".")
    write_images(tmp_path)
    ours = read_and_write(find_by_name("image reader/writer", reader)(), tmp_path, stem, f".{ending}")
    theirs = recorded("readers")[name]
    for answers in (ours, theirs):
        answers["written"] = [np.ravel(part).tolist() for part in answers.get("written", [])]
    assert ours["written"] == [pytest.approx(part) for part in theirs["written"]]
    del ours["written"], theirs["written"]
    assert ours == theirs


@pytest.mark.oracle
def test_recorded_raw_cases_have_the_recorded_properties(oracle_recorded):
    """The properties that upstream's preprocessing stored come from its reader."""
    checked = 0
    for stored in oracle_recorded.glob("preprocessed/*/nnUNetPlans_*/*.pkl"):
        raw = oracle_recorded / "raw" / stored.parts[-3]
        dataset_json = read_json(raw / "dataset.json")
        files = get_filenames_of_train_images_and_targets(raw, dataset_json)[stored.stem]
        reader = determine_reader_writer_from_dataset_json(dataset_json, files["images"][0])()
        data, properties = reader.read_images(files["images"])
        expected = load_restricted(stored)
        assert list(properties["spacing"]) == list(expected["spacing"])
        assert properties.get("sitk_stuff") == expected.get("sitk_stuff")
        assert data.shape[0] == len(dataset_json["channel_names"])
        assert sorted(data.shape[1:]) == sorted(expected["shape_before_cropping"])
        checked += 1
    assert checked > 20


@pytest.mark.oracle
def test_both_libraries_read_recorded_images_alike(oracle_recorded):
    paths = sorted(oracle_recorded.glob("raw/Dataset90[234]*/imagesTr/*_0000.nii.gz"))
    assert paths
    for path in paths:
        reader = find_by_name("image reader/writer", "SimpleITKIO")()
        ours, properties = reader.read_images([str(path)])
        other, other_properties = NibabelIO().read_images([str(path)])
        np.testing.assert_array_equal(ours, other)
        np.testing.assert_allclose(properties["spacing"], other_properties["spacing"], rtol=1e-6)

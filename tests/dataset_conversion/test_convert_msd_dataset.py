from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset, entry_point, split_4d_nifti
from nnunetv2.errors import DataError, UsageError
from tests.dataset_conversion.recorded_answers import recorded
from tests.recorded.conversion_cases import AFFINE, describe_folder, write_msd_task, write_old_task


@pytest.fixture
def raw(nnunet_folders) -> Path:
    return nnunet_folders["nnUNet_raw"]


@pytest.fixture
def task(tmp_path) -> Path:
    return write_msd_task(tmp_path)


def edit_json(task: Path, **changes) -> None:
    path = task / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.oracle
def test_converted_tasks_equal_upstreams(raw, tmp_path, task):
    convert_msd_dataset(task, num_processes=1)
    convert_msd_dataset(f"{write_msd_task(tmp_path, 'Task008_Flat', 1)}/", 123, 1)
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset007_Ducts", "Dataset123_Flat"]
    for dataset in raw.iterdir():
        assert describe_folder(dataset) == recorded(dataset.name)


def test_each_volume_of_a_4d_image_becomes_a_file_on_the_same_grid(tmp_path):
    voxels = np.arange(2 * 3 * 4 * 3, dtype=np.int16).reshape(2, 3, 4, 3)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "case.nii.gz")
    assert split_4d_nifti(tmp_path / "case.nii.gz", tmp_path) == 3
    for channel in range(3):
        image = nibabel.load(tmp_path / f"case_{channel:04d}.nii.gz")
        np.testing.assert_array_equal(image.get_fdata(), voxels[..., channel])
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)


def test_a_3d_image_is_copied_as_it_is(tmp_path):
    for shape in ((2, 3, 4), (2, 3, 4, 1)):
        nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.float32), AFFINE), tmp_path / "case.nii.gz")
        assert split_4d_nifti(str(tmp_path / "case.nii.gz"), str(tmp_path)) == 1
        assert (tmp_path / "case_0000.nii.gz").read_bytes() == (tmp_path / "case.nii.gz").read_bytes()


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2, 2)])
def test_images_with_other_numbers_of_axes_are_refused(shape, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "case.nii.gz")
    with pytest.raises(DataError, match="case.nii.gz has . axes"):
        split_4d_nifti(tmp_path / "case.nii.gz", tmp_path)
    with pytest.raises(UsageError, match="case.nii must be a file that ends in .nii.gz"):
        split_4d_nifti(tmp_path / "case.nii", tmp_path)


def test_a_damaged_image_is_named_and_nothing_is_left(raw, task):
    path = task / "imagesTr" / "duct_1.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:500]))
    with pytest.raises(DataError, match="Case imagesTr/duct_1: .* is cut off"):
        convert_msd_dataset(task, num_processes=1)
    assert not list(raw.iterdir())


def test_a_damaged_label_is_named_and_nothing_is_left(raw, task):
    (task / "labelsTr" / "duct_0.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="labelsTr/duct_0.nii.gz"):
        convert_msd_dataset(task, num_processes=1)
    assert not list(raw.iterdir())


@pytest.mark.parametrize("root", ["nnUNet_raw", "nnUNet_results"])
def test_a_number_that_is_taken_is_refused_with_the_cure(root, nnunet_folders, task):
    existing = nnunet_folders[root] / "Dataset007_Other"
    existing.mkdir()
    with pytest.raises(UsageError, match="7 belongs to Dataset007_Other .* -overwrite_id"):
        convert_msd_dataset(task, num_processes=1)
    convert_msd_dataset(task, 8, 1)
    assert (nnunet_folders["nnUNet_raw"] / "Dataset008_Ducts" / "dataset.json").is_file()
    assert not list(existing.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numTraining": 3}, "announces 3 training cases .* there are 2"),
        ({"modality": {"0": "CT"}}, "imagesTr/duct_0 has 2 channels, dataset.json names 1 \\(CT\\)"),
        ({"modality": {}}, 'must have the entries "modality" and "labels"'),
        ({"labels": {"background": 0, "duct": 1}}, "integers first"),
        ({"labels": {"0": "background", "1": "duct", "2": "duct"}}, "two of the .* 'duct'"),
        ({"labels": {"0": "background", "2": "duct"}}, "without \\[1\\]"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_refused(changes, message, raw, task):
    edit_json(task, **changes)
    with pytest.raises(DataError, match=message):
        convert_msd_dataset(task, num_processes=1)
    assert not list(raw.iterdir())


def test_label_0_gets_the_name_that_nnunet_needs(raw, task, caplog):
    edit_json(task, labels={"0": "Background", "1": "duct", "2": "stone"})
    convert_msd_dataset(task, num_processes=1)
    content = json.loads((raw / "Dataset007_Ducts" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "duct": 1, "stone": 2}
    assert "label 0 is named 'Background'" in caplog.text


def test_a_task_without_test_images_is_converted(raw, task):
    shutil.rmtree(task / "imagesTs")
    convert_msd_dataset(task, num_processes=1)
    assert {path.name for path in (raw / "Dataset007_Ducts").iterdir()} == {"dataset.json", "imagesTr", "labelsTr"}


def test_folders_that_are_no_task_are_refused_with_the_cure(raw, task, tmp_path):
    with pytest.raises(UsageError, match="nowhere is no folder, it has no dataset.json and no imagesTr"):
        convert_msd_dataset(tmp_path / "nowhere")
    (task / "labelsTr" / "duct_1.nii.gz").rename(task / "labelsTr" / "duct_3.nii.gz")
    with pytest.raises(DataError, match="duct_1 has no label, duct_3 has no image"):
        convert_msd_dataset(task)
    renamed = task.rename(tmp_path / "Ducts")
    with pytest.raises(UsageError, match="not named like a task .* give the folder its original name"):
        convert_msd_dataset(renamed)
    with pytest.raises(UsageError, match="nnUNetv2_convert_old_nnUNet_dataset"):
        convert_msd_dataset(write_old_task(tmp_path))
    with pytest.raises(UsageError, match="The number of the dataset is 1000"):
        convert_msd_dataset(tmp_path / "Task027_Hearts", 1000)
    assert not list(raw.iterdir())


def test_the_command_says_what_is_wrong_in_one_line(raw, task, capsys):
    assert entry_point(["-i", str(task), "-np", "1", "-overwrite_id", "12"]) == 0
    assert entry_point(["-i", str(task), "-np", "1", "-overwrite_id", "12"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in raw.iterdir()] == ["Dataset012_Ducts"]

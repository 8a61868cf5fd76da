"""Names of outputs (case 03): with endings, long, in any script. Nothing computed is lost, nothing hidden stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.inference import case_loop
from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.inference.tiny_models import IMAGES, model_folder, read_image, tiny_predictor

IMAGE = IMAGES / "case_0000.nii.gz"
FAST = {"use_mirroring": False, "tile_step_size": 1.0}
ENDINGS = (".nii.gz", ".nii", "")


@pytest.fixture
def predictor() -> nnUNetPredictor:
    return tiny_predictor(**FAST)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_names_the_file(ending: str, predictor: nnUNetPredictor, tmp_path: Path) -> None:
    image, properties = read_image(predictor)
    predictor.predict_from_files_sequential([[str(IMAGE)]], [str(tmp_path / f"files{ending}")], save_probabilities=True)
    predictor.predict_from_files([[str(IMAGE)]], [tmp_path / f"pool{ending}"])
    predictor.predict_from_list_of_npy_arrays([image], None, [properties], [str(tmp_path / f"list{ending}")], 0)
    predictor.predict_single_npy_array(image, properties, None, str(tmp_path / f"single{ending}"))
    assert names_in(tmp_path) == [
        "files.nii.gz", "files.npz", "files.pkl", "list.nii.gz", "pool.nii.gz", "single.nii.gz"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "case",
    ["scan.nii", "scan.nii.gz", "v1.2 (final)", "Gehirn-ä-脑", "x" * 240, "a.tar"],
    ids=["nii", "nii.gz", "dots", "unicode", "240 characters", "tar"],
)
def test_cases_of_a_folder_keep_their_names(case: str, predictor: nnUNetPredictor, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(IMAGE, folder / f"{case}_0000.nii.gz")
    predictor.predict_from_files_sequential(str(folder), str(output), save_probabilities=True)
    assert names_in(output) == [f"{case}.nii.gz", f"{case}.npz", f"{case}.pkl"]
    assert predictor.predict_from_files_sequential(str(folder), str(output), True, overwrite=False) is None


def test_names_that_cannot_be_written_are_refused_before_predicting(
    predictor: nnUNetPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_loop, "_logits", None)  # would be called to predict
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "file").touch()
    for name, reason in {
        "脑" * 90: "its name has 277 bytes",
        "y" * 249: "its name has 256 bytes",
        "a\0b": "null character",
        "sub/": "it has no file name",
        "sub/.nii.gz": "it has no file name",
        "folder": "it is a folder",
        "folder.nii.gz": "it is a folder",
        "file/a": "its folder cannot be created",
    }.items():
        with pytest.raises(UsageError, match=f"cannot be written: .*{reason}"):
            predictor.predict_from_files_sequential([[str(IMAGE)]], [f"{tmp_path}/{name}"])
    with pytest.raises(UsageError, match=r"a and .*a\.nii\.gz are the same file"):
        predictor.predict_from_files([[IMAGE], [IMAGE]], [tmp_path / "a", tmp_path / "a.nii.gz"])


def test_items_of_a_caller_are_checked_one_by_one(predictor: nnUNetPredictor, tmp_path: Path) -> None:
    image, properties = read_image(predictor)
    item = predictor.get_data_iterator_from_raw_npy_data([image], None, [properties], None, 0)
    item = next(iter(item))
    items = [{**item, "ofile": str(tmp_path / name)} for name in ("y" * 250, "new/a")]
    with pytest.raises(RuntimeError, match="1 of 2 cases failed.*its name has 257 bytes"):
        predictor.predict_from_data_iterator(items, False, 0)
    assert names_in(tmp_path / "new") == ["a.nii.gz"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_every_format_is_written_under_its_name(
    ending: str, predictor: nnUNetPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    reader = NibabelIO if ending == ".nii" else SimpleITKIO
    image, properties = reader().read_images([str(IMAGE)])
    monkeypatch.setitem(predictor.plans_manager.plans, "image_reader_writer", reader.__name__)
    monkeypatch.setitem(predictor.dataset_json, "file_ending", ending)
    plain = predictor.predict_single_npy_array(image, properties)
    predictor.predict_single_npy_array(image, properties, None, str(tmp_path / f"x{ending}"))
    predictor.predict_from_files_sequential([[str(IMAGE)]], [str(tmp_path / "y.nii.gz.v2")])
    assert names_in(tmp_path) == [f"x{ending}", f"y.nii.gz.v2{ending}"]
    np.testing.assert_array_equal(reader().read_seg(str(tmp_path / f"x{ending}"))[0][0], plain)


def test_the_command_leaves_nothing_hidden(tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(IMAGE, tmp_path / "in" / "scan.nii_0000.nii.gz")
    words = ["-f", "0", "-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0"]
    model, output = model_folder("3d_fullres"), tmp_path / "out"
    code, _ = run(predict_entry_point_modelfolder, "-i", tmp_path / "in", "-o", output, "-m", model, *words)
    assert code == 0
    assert names_in(output) == ["scan.nii.nii.gz"]

"""Cases without exactly the channels of the model (beyond the list, 6): nothing is predicted from a wrong channel."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from tests.faults.conftest import one_line
from tests.faults.volumes import NUMBER
from tests.inference.tiny_models import IMAGES, model_folder, tiny_predictor

IMAGE = IMAGES / "case_0000.nii.gz"
Run = Callable[..., tuple[int, str]]


def predict(run: Run, folder: Path) -> tuple[int, str]:
    words = ["-f", "0", "-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0"]
    model = model_folder("3d_fullres")
    return run(predict_entry_point_modelfolder, "-i", folder / "in", "-o", folder / "out", "-m", model, *words)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for case in ("a_0000", "b_0000"):
        shutil.copy(IMAGE, tmp_path / "in" / f"{case}.nii.gz")
    return tmp_path / "in"


def test_a_second_channel_without_the_first_is_not_predicted(images: Path, tmp_path: Path, run: Run) -> None:
    shutil.copy(IMAGE, images / "c_0001.nii.gz")
    code, stderr = predict(run, tmp_path)
    assert code == 4
    one_line(stderr, "1 of 3 cases failed", "c has no _0000 (MRI)", "_0001, which is no channel of the model")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]
    assert list(read_json(tmp_path / "out" / "failures.json")) == ["c"]


def test_surplus_channels_are_not_predicted(images: Path, tmp_path: Path, run: Run) -> None:
    shutil.copy(IMAGE, images / "a_0001.nii.gz")
    code, stderr = predict(run, tmp_path)
    assert code == 4
    one_line(stderr, "a has _0001, which is no channel of the model; one channel is needed (MRI)")


def test_nothing_else_to_predict(images: Path, tmp_path: Path, run: Run) -> None:
    for path in images.iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "_0001")))
    code, stderr = predict(run, tmp_path)
    assert code == 3
    one_line(stderr, "has no _0000 (MRI)")


def test_lists_of_files_are_checked(images: Path) -> None:
    path = (images / "a_0000.nii.gz").rename(images / "a_0001.nii.gz")
    with pytest.raises(DataError, match=r"a has no _0000 \(MRI\)"):
        tiny_predictor().predict_from_files_sequential([[str(path)]], None)


def test_preprocessing_refuses_a_training_case_without_its_first_channel(raw_volumes: Path, run: Run) -> None:
    image = raw_volumes / "imagesTr" / "case_b_0000.nii.gz"
    image.rename(image.with_name("case_b_0001.nii.gz"))
    code, stderr = run(plan_and_preprocess_entry, "-d", NUMBER, "-c", "3d_fullres", "-npfp", "1", "-np", "1")
    assert code == 3
    one_line(stderr, "Case case_b has case_b_0001.nii.gz but no case_b_0000.nii.gz")

"""Row 31: a damaged image, and a link that leads nowhere, stop only their own predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from nnunetv2.run.run_training import run_training_entry
from tests.faults.conftest import one_line
from tests.faults.injection import truncate

CASES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def model(tiny_images: Path, nnunet_folders: dict[str, Path], short_training: Callable, run: Callable) -> Path:
    short_training(epochs=1)
    assert run(run_training_entry, "777", "2d", "0", "-device", "cpu")[0] == 0
    (folder,) = nnunet_folders["nnUNet_results"].glob("*/*")
    return folder


def test_the_other_cases_are_predicted(model: Path, tiny_images: Path, tmp_path: Path, run: Callable) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for case, source in zip(CASES, sorted((tiny_images / "gt_segmentations").iterdir()), strict=False):
        (images / f"{case}_0000.png").write_bytes(source.read_bytes())
    words = ("-m", model, "-i", images, "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1")
    assert run(predict_entry_point_modelfolder, *words, "-o", tmp_path / "clean")[0] == 0
    truncate(images / "c_0000.png", 0.5)
    (images / "f_0000.png").symlink_to("not mounted")
    code, stderr = run(predict_entry_point_modelfolder, *words, "-o", tmp_path / "out")
    assert code == 4
    one_line(stderr, "2 of 6 cases failed", "c", "f")
    assert list(read_json(tmp_path / "out" / "failures.json")) == ["c", "f"]
    for case in ("a", "b", "d", "e"):
        assert (tmp_path / "out" / f"{case}.png").read_bytes() == (tmp_path / "clean" / f"{case}.png").read_bytes()
    assert not (tmp_path / "out" / "c.png").exists()

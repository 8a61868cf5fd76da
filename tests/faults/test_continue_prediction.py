"""`--continue_prediction` (row 32): results that are not whole, or not of this case and model, are predicted again."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from nnunetv2.inference import case_loop
from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from tests.faults.conftest import one_line
from tests.faults.injection import flip_bit, times, truncate
from tests.inference.tiny_models import IMAGES, model_folder

IMAGE = IMAGES / "case_0000.nii.gz"
MODEL = model_folder("3d_fullres")
OPTIONS = ["-f", "0", "-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0", "--save_probabilities"]
Run = Callable[..., tuple[int, str]]


def words(folder: Path, output: str, *more: str) -> list[str]:
    return ["-i", str(folder / "in"), "-o", str(folder / output), "-m", str(MODEL), *OPTIONS, *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


def images_of(folder: Path, cases: int) -> None:
    """Different images, so that a result in the wrong place would be seen."""
    (folder / "in").mkdir()
    source = nib.load(IMAGE)
    for number in range(cases):
        values = np.roll(np.asarray(source.dataobj), number, axis=0)
        nib.save(nib.Nifti1Image(values, source.affine), folder / "in" / f"c{number:02d}_0000.nii.gz")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `in` with 3 cases and `clean` with their results."""
    folder = tmp_path_factory.mktemp("predicted")
    images_of(folder, 3)
    assert predict_entry_point_modelfolder(words(folder, "clean")) == 0
    return folder


def moved(change: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        segmentation = nib.load(path)
        affine = segmentation.affine.copy()
        change(affine)
        values = np.asarray(segmentation.dataobj).copy()
        path.unlink()
        nib.save(nib.Nifti1Image(values, affine), path)

    return rewrite


def change_voxels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        segmentation = nib.load(path)
        values = change(np.asarray(segmentation.dataobj).copy())
        path.unlink()
        nib.save(nib.Nifti1Image(values, segmentation.affine), path)

    return rewrite


def shifted(affine: np.ndarray) -> None:
    affine[0, 3] += 0.5


def stretched(affine: np.ndarray) -> None:
    affine[:3, 2] *= 1.5


def mirrored(affine: np.ndarray) -> None:
    affine[0, :3] *= -1


def one_unknown(values: np.ndarray) -> np.ndarray:
    values[0, 0, 0] = 9
    return values


def one_fraction(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[1, 1, 1] = 0.5
    return values


def middle_bit(path: Path) -> None:
    size = path.stat().st_size
    flip_bit(path, np.random.default_rng(1), start=size // 3, end=2 * size // 3)


def other_spacing(path: Path) -> None:
    properties = pickle.loads(path.read_bytes())  # noqa: S301 - written by this test
    properties["spacing"] = [7.0, 7.0, 7.0]
    path.write_bytes(pickle.dumps(properties))


def other_probabilities(path: Path) -> None:
    with np.load(path) as content:
        scores = content["probabilities"]
    np.savez_compressed(path, probabilities=scores[:, 1:])


FAULTS = {
    "segmentation empty": ("c01.nii.gz", lambda path: path.write_bytes(b"")),
    "segmentation cut off": ("c01.nii.gz", lambda path: truncate(path, 0.7)),
    "segmentation flipped": ("c01.nii.gz", middle_bit),
    "segmentation of another shape": ("c01.nii.gz", change_voxels(lambda values: values[1:])),
    "segmentation with an unknown label": ("c01.nii.gz", change_voxels(one_unknown)),
    "segmentation with a fraction": ("c01.nii.gz", change_voxels(one_fraction)),
    "segmentation shifted": ("c01.nii.gz", moved(shifted)),
    "segmentation of another spacing": ("c01.nii.gz", moved(stretched)),
    "segmentation of another direction": ("c01.nii.gz", moved(mirrored)),
    "probabilities missing": ("c01.npz", Path.unlink),
    "probabilities cut off": ("c01.npz", lambda path: truncate(path, 0.7)),
    "probabilities flipped": ("c01.npz", middle_bit),
    "probabilities of another shape": ("c01.npz", other_probabilities),
    "properties missing": ("c01.pkl", Path.unlink),
    "properties empty": ("c01.pkl", lambda path: path.write_bytes(b"")),
    "properties cut off": ("c01.pkl", lambda path: truncate(path, 0.5)),
    "properties of another kind": ("c01.pkl", lambda path: path.write_bytes(pickle.dumps([1]))),
    "properties of another image": ("c01.pkl", other_spacing),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_whole_is_predicted_again(
    fault: str, predicted: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(predicted / "in", tmp_path / "in")
    shutil.copytree(predicted / "clean", tmp_path / "out")
    name, damage = FAULTS[fault]
    damage(tmp_path / "out" / name)
    assert contents(tmp_path / "out") != contents(predicted / "clean")
    done = _count_predicted(monkeypatch)
    code, stderr = run(predict_entry_point_modelfolder, *words(tmp_path, "out", "--continue_prediction"))
    assert code == 0, stderr
    assert contents(tmp_path / "out") == contents(predicted / "clean")
    assert done == ["c01"]


def _count_predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    predict = case_loop._logits

    def counted(item: dict, predict_logits: Callable) -> np.ndarray:
        done.append(Path(item["ofile"]).name)
        return predict(item, predict_logits)

    monkeypatch.setattr(case_loop, "_logits", counted)
    return done


def test_whole_results_are_kept(predicted: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(predicted / "in", tmp_path / "in")
    shutil.copytree(predicted / "clean", tmp_path / "out")
    done = _count_predicted(monkeypatch)
    assert run(predict_entry_point_modelfolder, *words(tmp_path, "out", "--continue_prediction"))[0] == 0
    assert done == []


def test_the_result_of_an_older_image_is_not_kept(
    predicted: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(predicted / "in", tmp_path / "in")
    shutil.copytree(predicted / "clean", tmp_path / "out")
    shutil.copyfile(predicted / "in" / "c00_0000.nii.gz", tmp_path / "in" / "c01_0000.nii.gz")
    done = _count_predicted(monkeypatch)
    assert run(predict_entry_point_modelfolder, *words(tmp_path, "out", "--continue_prediction"))[0] == 0
    assert done == ["c01"]
    segmentations = [nib.load(tmp_path / "out" / f"{case}.nii.gz").get_fdata() for case in ("c00", "c01")]
    assert np.array_equal(*segmentations)


def test_results_of_another_model_are_not_continued(predicted: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(predicted / "in", tmp_path / "in")
    shutil.copytree(predicted / "clean", tmp_path / "out")
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    next(iter(checkpoint["network_weights"].values())).add_(1e-3)
    torch.save(checkpoint, file)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = [str(tmp_path / "model") if word == str(MODEL) else word for word in words(tmp_path, "out")]
    code, stderr = run(predict_entry_point_modelfolder, *other, "--continue_prediction")
    assert code == 2
    one_line(stderr, "were made with other weights", "another output folder")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert run(predict_entry_point_modelfolder, *other)[0] == 0


@pytest.mark.timeout(1800)
def test_killed_at_any_time_it_continues_to_the_result_of_a_clean_run(tmp_path: Path, run: Run) -> None:
    images_of(tmp_path, 5)
    assert run(predict_entry_point_modelfolder, *words(tmp_path, "clean"))[0] == 0
    clean = contents(tmp_path / "clean")
    generator = np.random.default_rng(32)
    context = multiprocessing.get_context("forkserver")  # imports torch once for all processes
    context.set_forkserver_preload(
        ["nnunetv2.inference.predict_from_raw_data", "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"]
    )
    found = []
    for attempt in range(times(3, 20)):
        output = f"out{attempt}"
        process = context.Process(target=predict_entry_point_modelfolder, args=(words(tmp_path, output),))
        process.start()
        _wait_for_files(process, tmp_path / output, int(generator.integers(0, len(clean) - 3)))
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        process.join()
        found.append(len(contents(tmp_path / output)))
        assert run(predict_entry_point_modelfolder, *words(tmp_path, output, "--continue_prediction"))[0] == 0
        assert contents(tmp_path / output) == clean
    assert min(found) < len(clean), "no process was killed before it was done"


def _wait_for_files(process: ForkServerProcess, folder: Path, number: int) -> None:
    """Waits until a process has begun and has written some of its files."""
    while process.is_alive():
        names = os.listdir(folder) if folder.is_dir() else []
        if "plans.json" in names and sum(not name.endswith(".json") for name in names) >= number:
            return
        time.sleep(0.005)

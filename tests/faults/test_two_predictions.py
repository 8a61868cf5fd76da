"""Commands that use one folder at the same time: their results are those of one after the other, or one is refused."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.comparison.entry_point import compare_entry
from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
from nnunetv2.evaluation.evaluate_entry_points import evaluate_simple_entry_point
from nnunetv2.inference.predict_entry_points import predict_entry_point, predict_entry_point_modelfolder
from nnunetv2.postprocessing.entry_points import entry_point_apply_postprocessing
from nnunetv2.utilities.processes.output_lock import locked_output
from nnunetv2.utilities.restricted_pickle import save_pickle
from tests.faults.conftest import one_line
from tests.faults.injection import times
from tests.inference.tiny_models import IMAGES, model_folder, tiny_predictor

Run = Callable[..., tuple[int, str]]
Call = tuple[Callable[[list[str]], int], list[str]]
MODEL = model_folder("3d_fullres")
OPTIONS = ["-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    source = nib.load(IMAGES / "case_0000.nii.gz")
    for number in range(4):
        values = np.roll(np.asarray(source.dataobj), number, axis=0)
        nib.save(nib.Nifti1Image(values, source.affine), folder / f"c{number}_0000.nii.gz")
    return folder


def predicting(images: Path, output: Path, *more: str) -> Call:
    words = ["-i", str(images), "-o", str(output), "-m", str(MODEL), *OPTIONS, *more]
    return predict_entry_point_modelfolder, words


def at_once(*calls: Call) -> list[int]:
    """Exit codes of commands that start at the same time, each in a process of its own."""
    context = multiprocessing.get_context("forkserver")  # imports torch once for all processes
    context.set_forkserver_preload(["tests.inference.tiny_models", "nnunetv2.evaluation.evaluate_predictions"])
    barrier = context.Barrier(len(calls))
    roots = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
    processes = [context.Process(target=_run_together, args=(barrier, roots, *call)) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _run_together(barrier: Barrier, roots: dict[str, str], entry: Callable[[list[str]], int], words: list[str]) -> None:
    os.environ.update(roots)  # the server was started with others
    import nnunetv2.inference.predict_from_raw_data  # noqa: F401 - so that the work itself coincides

    barrier.wait(120)
    raise SystemExit(entry(words))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


@pytest.mark.timeout(1200)
def test_two_models_never_mix_their_results_in_one_folder(images: Path, tmp_path: Path) -> None:
    alone = []
    for number, flags in enumerate(([], ["--disable_tta"])):
        entry, words = predicting(images, tmp_path / f"alone{number}", *flags)
        assert entry(words) == 0
        alone.append(contents(tmp_path / f"alone{number}"))
    assert alone[0] != alone[1]
    for attempt in range(times(1, 10)):
        output = tmp_path / f"out{attempt}"
        codes = at_once(predicting(images, output), predicting(images, output, "--disable_tta"))
        assert sorted(codes) in ([0, 6], [0, 0])
        done = [result for code, result in zip(codes, alone, strict=True) if code == 0]
        assert contents(output) in done
        assert not (output / "failures.json").exists()


@pytest.mark.timeout(1200)
def test_parts_beside_an_evaluation(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation sees the folder before, between or after the parts, or is refused."""
    results = tmp_path / "results" / "Dataset004_Tiny"
    shutil.copytree(MODEL, results / MODEL.name)
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    entry, words = predicting(images, tmp_path / "alone")
    assert entry(words) == 0
    references, clean = tmp_path / "references", contents(tmp_path / "alone")
    references.mkdir()
    for path in (tmp_path / "alone").glob("*.nii.gz"):
        shutil.copy(path, references)
    for attempt in range(times(1, 10)):
        output = tmp_path / f"out{attempt}"
        output.mkdir()
        parts = [
            (predict_entry_point, ["-i", str(images), "-o", str(output), "-d", "4", "-c", "3d_fullres", *OPTIONS]
             + ["-num_parts", "2", "-part_id", str(part)])
            for part in range(2)
        ]  # fmt: skip
        evaluation = (evaluate_simple_entry_point, [str(references), str(output), "-l", "1", "-np", "1", "--chill"])
        *codes, code = at_once(*parts, evaluation)
        # A part that starts while the evaluation holds the folder is refused, and can be run again.
        assert set(codes) <= {0, 6} and code in (0, 3, 6)
        for (entry, words), own in zip(parts, codes, strict=True):
            assert own == 0 or (code != 6 and entry(words) == 0)
        assert contents(output) == clean
        if code == 0:
            assert len(read_json(output / "summary.json")["metric_per_case"]) in (2, 4)


def test_who_works_in_the_folder_is_said(images: Path, tmp_path: Path, run: Run) -> None:
    output, predicted = tmp_path / "out", tmp_path / "predicted"
    entry, words = predicting(images, predicted)
    assert entry(words) == 0
    save_pickle(([], []), tmp_path / "postprocessing.pkl")
    second = tmp_path / "second"
    shutil.copytree(predicted, second)
    calls: list[Call] = [
        predicting(images, output),
        (entry_point_ensemble_folders, ["-i", str(predicted), str(second), "-o", str(output), "-np", "1"]),
        (
            entry_point_apply_postprocessing,
            ["-i", str(predicted), "-o", str(output), "-pp_pkl_file", str(tmp_path / "postprocessing.pkl"), "-np", "1"],
        ),
        (evaluate_simple_entry_point, [str(predicted), str(output), "-l", "1", "-np", "1"]),
    ]
    with locked_output(output, "predicting"):
        for entry, words in calls:
            code, stderr = run(entry, *words)
            assert code == 6
            one_line(stderr, str(output), "is in use: Process ", " is predicting since ", "wait until it ends")
    assert not output.exists()
    for entry, words in calls:
        assert run(entry, *words)[0] == 0


def test_a_comparison_into_the_folder_of_another_is_refused(tmp_path: Path, run: Run) -> None:
    with locked_output(tmp_path / "out", "comparing"):
        code, stderr = run(compare_entry, "-d", "4", "-m", "a", "b", "-o", tmp_path / "out")
    assert code == 6
    one_line(stderr, "is comparing since")


def test_scripts_that_share_a_folder_are_not_refused(images: Path, tmp_path: Path) -> None:
    """As upstream's users do: one process for each GPU, each with its own list of cases."""
    predictor, files = tiny_predictor(use_mirroring=False), sorted(images.iterdir())
    with locked_output(tmp_path / "out", "predicting", shared=True):
        for path in files:
            predictor.predict_from_files_sequential([[str(path)]], [str(tmp_path / "out" / path.name[:2])])
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == len(files)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", ["ensemble", "postprocess"])
def test_twice_into_one_folder(command: str, images: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        entry, words = predicting(images, tmp_path / name, *(["--disable_tta"] if name == "two" else []))
        assert entry(words) == 0
    save_pickle(([], []), tmp_path / "postprocessing.pkl")

    def call(output: Path, number: int) -> Call:
        if command == "ensemble":
            inputs = [str(tmp_path / name) for name in ("one", "two")][: 1 + number]
            return entry_point_ensemble_folders, ["-i", *inputs, "-o", str(output), "-np", "1"]
        file = str(tmp_path / "postprocessing.pkl")
        source = str(tmp_path / ("one", "two")[number])
        return entry_point_apply_postprocessing, ["-i", source, "-o", str(output), "-pp_pkl_file", file, "-np", "1"]

    alone = []
    for number in range(2):
        entry, words = call(tmp_path / f"alone{number}", number)
        assert entry(words) == 0
        alone.append(contents(tmp_path / f"alone{number}"))
    for attempt in range(times(1, 10)):
        output = tmp_path / f"out{attempt}"
        codes = at_once(call(output, 0), call(output, 1))
        assert sorted(codes) in ([0, 6], [0, 0])
        assert contents(output) in list(itertools.compress(alone, [code == 0 for code in codes]))

"""Faults 23 and 24: checkpoints, pickles and npz files whose objects call functions, opened by commands."""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from nnunetv2.postprocessing.entry_points import entry_point_apply_postprocessing
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.state import checkpoint
from tests.faults.conftest import one_line

WORDS = ("777", "2d", "0", "-device", "cpu")


def call(function: Callable, *arguments: object) -> object:
    """An object whose pickle calls a function."""
    return type("Payload", (), {"__reduce__": lambda self: (function, arguments)})()


def payloads(marker: Path) -> dict[str, object]:
    return {
        "system": call(os.system, f"touch {marker}"),
        "open": call(builtins.open, str(marker), "w"),
        "eval": call(eval, f"open({str(marker)!r}, 'w')"),
        "exec": call(exec, f"open({str(marker)!r}, 'w')"),
        "subprocess": call(subprocess.check_call, ["touch", str(marker)]),
    }


PAYLOADS = list(payloads(Path("x")))
PLACES = ["network_weights", "init_args", "logging"]


@pytest.fixture
def trained(tiny_images: Path, nnunet_folders: dict[str, Path], short_training: Callable, run: Callable) -> Path:
    """The fold of a tiny training."""
    short_training(epochs=1)
    assert run(run_training_entry, *WORDS)[0] == 0
    (fold,) = nnunet_folders["nnUNet_results"].glob("*/*/fold_0")
    return fold


def test_checkpoints(trained: Path, tiny_images: Path, tmp_path: Path, run: Callable) -> None:
    marker, file = tmp_path / "marker", trained / checkpoint.FINAL
    genuine = torch.load(file, weights_only=True)
    images = ("-i", tmp_path / "images", "-o", tmp_path / "out", "-m", trained.parent, "-f", "0", "-device", "cpu")
    (tmp_path / "images").mkdir()
    image = next((tiny_images / "gt_segmentations").iterdir())
    (tmp_path / "images" / "a_0000.png").write_bytes(image.read_bytes())
    for number, (name, payload) in enumerate(payloads(marker).items()):
        torch.save({**genuine, PLACES[number % len(PLACES)]: {name: payload}}, file)
        for entry, words in ((predict_entry_point_modelfolder, images), (run_training_entry, (*WORDS, "--val"))):
            code, stderr = run(entry, *words)
            assert code == 3, (name, stderr)
            one_line(stderr, checkpoint.FINAL)
            assert not marker.exists(), name


@pytest.mark.parametrize("name", PAYLOADS)
def test_case_properties(name: str, tiny_images: Path, tmp_path: Path, short_training: Callable, run: Callable) -> None:
    marker = tmp_path / "marker"
    for file in (tiny_images / "nnUNetPlans_2d").glob("*.pkl"):
        file.write_bytes(pickle.dumps({"spacing": payloads(marker)[name]}))
    code, stderr = run(run_training_entry, *WORDS)
    assert code == 3, stderr
    one_line(stderr, ".pkl")
    assert not marker.exists()


@pytest.mark.parametrize("name", PAYLOADS)
def test_postprocessing(name: str, tiny_images: Path, tmp_path: Path, run: Callable) -> None:
    marker, file = tmp_path / "marker", tmp_path / "postprocessing.pkl"
    file.write_bytes(pickle.dumps(([payloads(marker)[name]], [{}])))
    folder, plans = tiny_images / "gt_segmentations", tiny_images / "nnUNetPlans.json"
    words = ("-i", folder, "-o", tmp_path / "out", "-pp_pkl_file", file, "-plans_json", plans, "-np", "1")
    code, stderr = run(entry_point_apply_postprocessing, *words, "-dataset_json", tiny_images / "dataset.json")
    assert code == 3, stderr
    one_line(stderr, "postprocessing.pkl")
    assert not marker.exists()


@pytest.mark.parametrize("name", PAYLOADS)
def test_probabilities(name: str, tiny_images: Path, tmp_path: Path, run: Callable) -> None:
    from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders

    marker = tmp_path / "marker"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "case.npz", probabilities=np.array([payloads(marker)[name]], dtype=object))
        (tmp_path / folder / "case.pkl").write_bytes(pickle.dumps({"spacing": [1, 1, 1]}))
        for file, copy in (("dataset.json", "dataset.json"), ("nnUNetPlans.json", "plans.json")):
            (tmp_path / folder / copy).write_bytes((tiny_images / file).read_bytes())
    code, stderr = run(
        entry_point_ensemble_folders, "-i", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c", "-np", "1"
    )
    assert code == 3, stderr
    one_line(stderr, "case.npz")
    assert not marker.exists()

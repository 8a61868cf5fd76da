"""Two preprocessings of one dataset at once; splits and unpacked files made by many processes at once (row 30)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dinov3.utils.folder_lock import locked_folder
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import preprocess_entry
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2
from tests.faults import volumes
from tests.faults.conftest import one_line
from tests.faults.injection import times

PREPROCESS = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import {0}; raise SystemExit({0}())"
WORDS = ["-d", volumes.NUMBER, "-c", "3d_fullres", "-np", "1", "--no_pbar"]
CASES = "nnUNetPlans_3d_fullres"
NUM_PROCESSES = 8


def contents(folder: Path) -> dict[str, np.ndarray]:
    """Images and labels of all stored cases."""
    arrays = {}
    stored = nnUNetDatasetBlosc2(str(folder))
    for case in stored.identifiers:
        image, label, _, properties = stored.load_case(case)
        arrays |= {case: image[:], f"{case}_seg": label[:]}
        arrays[f"{case}_box"] = np.array(properties["bbox_used_for_cropping"])
    return arrays


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def start(entry: str, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PREPROCESS.format(entry), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def hidden(folder: Path) -> list[str]:
    """Hidden entries of a folder, without the empty files that locks leave."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] == "." and not path.name.endswith(".lock"))


def test_the_second_preprocessing_is_refused(preprocessed_volumes: Path, run: Callable) -> None:
    before = contents(preprocessed_volumes / CASES)
    with locked_folder(preprocessed_volumes, "preprocessing", part=CASES):
        code, said = run(preprocess_entry, *WORDS)
    assert code == 6
    one_line(said, "preprocessing in", CASES)
    assert_same(contents(preprocessed_volumes / CASES), before)
    assert run(preprocess_entry, *WORDS)[0] == 0
    assert hidden(preprocessed_volumes) == []


def test_other_configurations_are_not_refused(preprocessed_volumes: Path, run: Callable) -> None:
    with locked_folder(preprocessed_volumes, "preprocessing", part="nnUNetPlans_2d"):
        assert run(preprocess_entry, *WORDS)[0] == 0


def test_simultaneous_commands_leave_a_complete_folder(preprocessed_volumes: Path) -> None:
    expected = contents(preprocessed_volumes / CASES)
    for _ in range(times(1, 10)):
        commands = [start("plan_and_preprocess_entry", *WORDS, "-npfp", "1", "--clean") for _ in range(2)]
        said = [command.communicate()[1] for command in commands]
        codes = sorted(command.returncode for command in commands)
        assert codes in ([0, 0], [0, 6]), said
        assert not any("Traceback" in text for text in said), said
        assert_same(contents(preprocessed_volumes / CASES), expected)
        assert hidden(preprocessed_volumes) == []


KILLED = """
import os, signal, sys
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import preprocess_entry
replace, left = os.replace, int(sys.argv.pop(1))
def replace_and_count(*paths):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*paths)
os.replace = replace_and_count
raise SystemExit(preprocess_entry())
"""
RENAMES = 3 * len(volumes.CASES) + 2  # three files per case; then the older folder, and the new one


def test_a_killed_preprocessing_leaves_nothing_behind(preprocessed_volumes: Path, run: Callable) -> None:
    expected = contents(preprocessed_volumes / CASES)
    for at in np.unique(np.linspace(0, RENAMES - 1, times(2, RENAMES), dtype=int)):
        killed = subprocess.run([sys.executable, "-c", KILLED, str(at), *WORDS], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if at < RENAMES - 1:
            assert_same(contents(preprocessed_volumes / CASES), expected)  # those of the earlier run
        assert hidden(preprocessed_volumes)
        assert run(preprocess_entry, *WORDS)[0] == 0
        assert_same(contents(preprocessed_volumes / CASES), expected)
        assert hidden(preprocessed_volumes) == []


SPLIT = """
import pathlib, sys, time
from nnunetv2.training.dataloading.splits import load_or_create_splits, select_fold
cases = [f"case_{n}" for n in range(20)]
print("ready", flush=True)
for folder in sys.stdin:
    splits = load_or_create_splits(folder.strip(), cases)
    print(select_fold(splits, 0, cases), flush=True)
"""

UNPACK = """
import sys
import numpy as np
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetNumpy
print("ready", flush=True)
for folder in sys.stdin:
    nnUNetDatasetNumpy.unpack_dataset(folder.strip(), num_processes=1)
    stored = nnUNetDatasetNumpy(folder.strip())
    print([float(np.sum(stored.load_case(case)[0])) for case in stored.identifiers], flush=True)
"""


def answers_of_all(program: str, folders: list[Path], num_processes: int) -> list[set[str]]:
    """Lets processes work in each folder at the same time; returns what they print per folder."""
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(num_processes)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    answers = []
    for folder in folders:
        for process in processes:
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        answers.append({process.stdout.readline() for process in processes})
    errors = [process.communicate()[1] for process in processes]
    assert not any(process.returncode for process in processes), errors
    return answers


@pytest.mark.parametrize("kind", ["splits", "unpacked"])
def test_many_processes_agree(kind: str, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(times(5, 20))]
    image = np.random.default_rng(0).normal(size=(1, 60, 60, 60)).astype(np.float32)
    for folder in folders:
        folder.mkdir()
        if kind == "unpacked":
            for case in ("a", "b"):
                np.savez_compressed(folder / f"{case}.npz", data=image, seg=image[:, :2].astype(np.int8))
                (folder / f"{case}.pkl").write_bytes(b"\x80\x04}\x94.")  # an empty dict
    answers = answers_of_all(SPLIT if kind == "splits" else UNPACK, folders, times(3, NUM_PROCESSES))
    assert all(len(each) == 1 for each in answers), answers
    names = (
        ["splits_final.json"]
        if kind == "splits"
        else sorted(f"{case}{ending}" for case in ("a", "b") for ending in (".npy", ".npz", ".pkl", "_seg.npy"))
    )
    assert {tuple(sorted(os.listdir(folder))) for folder in folders} == {tuple(names)}
    if kind == "splits":
        assert len({(folder / names[0]).read_bytes() for folder in folders}) == 1
        assert len(json.loads((folders[0] / names[0]).read_text())) == 5

"""Measures time and peak memory of planning commands, ours and, if its interpreter is given, upstream's.

    python benchmarks/planning_cost.py [--beside PYTHON] [--before FOLDER] [--dataset RAW_FOLDER ID] [--processes N]

Runs `nnUNetv2_extract_fingerprint` and `nnUNetv2_plan_and_preprocess` (2d and 3d_fullres, where the plans have them)
on two datasets made here, 24 RGB photographs and 8 CT volumes of about 48 x 160 x 160 voxels, or on one of your own.
Without `--processes` each program uses its default number of workers. CPU seconds and memory are those of the whole
process tree, memory as proportional set size (PSS), in which shared pages count once. Prints a Markdown table, the
ratio of the others' CPU seconds to ours, and how far the intensity statistics of their fingerprints are from ours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import psutil
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
_ENTRY = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
_CALL = f"""
import sys
from {_ENTRY} import {{function}}
if __name__ == "__main__":
    sys.exit({{function}}())
"""
_SECONDS_BETWEEN_SAMPLES = 0.05
PHOTOGRAPHS, VOLUMES = 901, 902


@dataclass(frozen=True)
class Command:
    """A planning command, as users type it."""

    name: str
    function: str
    words: tuple[str, ...]


COMMANDS = (
    Command("extract_fingerprint", "extract_fingerprint_entry", ("--clean", "--no_pbar")),
    Command("plan_and_preprocess", "plan_and_preprocess_entry", ("-c", "2d", "3d_fullres", "--no_pbar")),
)


@dataclass(frozen=True)
class Cost:
    """Seconds and megabytes of a command with its worker processes."""

    cpu: float
    wall: float
    megabytes: float


def make_datasets(raw: Path) -> dict[str, int]:
    """Creates both datasets below `raw`; returns their numbers by description."""
    random = np.random.default_rng(0)
    folder = raw / f"Dataset{PHOTOGRAPHS}_Photographs"
    for number in range(24):
        pixels = random.integers(0, 255, (256, 256, 3), dtype=np.uint8)
        labels = _balls((1, 256, 256), random)[0]
        _save_picture(folder / "imagesTr" / f"photo{number:02d}_0000.png", pixels)
        _save_picture(folder / "labelsTr" / f"photo{number:02d}.png", labels)
    _describe(folder, {"0": "R", "1": "G", "2": "B"}, ".png", 24)
    folder = raw / f"Dataset{VOLUMES}_Volumes"
    for number in range(8):
        shape = tuple(int(length) for length in random.integers((44, 150, 150), (56, 170, 170)))
        labels = _balls(shape, random)
        voxels = (random.normal(0, 60, shape) + 120 * labels).astype(np.int16)
        spacing = (0.8, 0.8, float(random.uniform(3, 5)))
        _save_volume(folder / "imagesTr" / f"ct{number}_0000.nii.gz", voxels, spacing)
        _save_volume(folder / "labelsTr" / f"ct{number}.nii.gz", labels, spacing)
    _describe(folder, {"0": "CT"}, ".nii.gz", 8)
    return {"24 photographs of 256 x 256": PHOTOGRAPHS, "8 CT volumes of 48 x 160 x 160": VOLUMES}


def _balls(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A label map with one ball of each of the labels 1 and 2; radii are shares of the axes."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij"), axis=-1)
    labels = np.zeros(shape, dtype=np.uint8)
    for label in (1, 2):
        center = np.where(np.array(shape) > 1, random.uniform(-0.5, 0.5, 3), -1)
        labels[np.linalg.norm(grid - center, axis=-1) < 0.3] = label
    return labels


def _save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _save_volume(path: Path, voxels: np.ndarray, spacing: tuple[float, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.diag((*spacing, 1))), path)


def _describe(folder: Path, channels: dict[str, str], ending: str, cases: int) -> None:
    labels = {"background": 0, "first": 1, "second": 2}
    description = {"channel_names": channels, "labels": labels, "numTraining": cases, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def tree_pss(process: psutil.Process) -> int:
    """Returns the proportional set size of a process and its descendants in bytes."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            rollup = Path(f"/proc/{member.pid}/smaps_rollup").read_text()
        except OSError:  # the process has just ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total


class PeakMemory(threading.Thread):
    """Samples a process tree until the process ends; `peak` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.peak = 0

    def run(self) -> None:
        while True:
            try:
                if self.process.status() == psutil.STATUS_ZOMBIE:
                    return
                self.peak = max(self.peak, tree_pss(self.process))
            except psutil.NoSuchProcess:
                return
            time.sleep(_SECONDS_BETWEEN_SAMPLES)


def measure(
    command: Command, python: str, checkout: Path | None, raw: Path, dataset_id: int, processes: int | None
) -> tuple[Cost, dict]:
    """Runs a command with one interpreter; returns its cost and the fingerprint that it wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch, "command.py")  # a file, because spawned workers import the main module
        script.write_text(_CALL.format(function=command.function), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "nnUNet_raw": str(raw),
            "nnUNet_preprocessed": scratch,
            "nnUNet_results": scratch,
            "OMP_NUM_THREADS": "1",
        }
        if checkout is not None:
            environment["PYTHONPATH"] = str(checkout)
        words = [python, str(script), "-d", str(dataset_id), *command.words]
        if processes is not None:
            words += ["-np", str(processes)]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        memory = PeakMemory(process.pid)
        memory.start()
        if process.wait():
            raise SystemExit(f"{' '.join(words)} ended with exit code {process.returncode}")
        wall = time.perf_counter() - started
        memory.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (fingerprint_file,) = Path(scratch).glob("*/dataset_fingerprint.json")
        fingerprint = json.loads(fingerprint_file.read_text(encoding="utf-8"))
    return Cost(cpu, wall, memory.peak / 2**20), fingerprint


def largest_difference(ours: dict, theirs: dict) -> float:
    """Returns the largest relative difference of the intensity statistics of two fingerprints."""
    key = "foreground_intensity_properties_per_channel"
    return max(
        abs(ours[key][channel][name] - value) / max(abs(value), 1e-12)
        for channel, statistics in theirs[key].items()
        for name, value in statistics.items()
    )


def row(name: str, measured: dict[str, tuple[Cost, dict]]) -> str:
    """A line of the Markdown table: costs of each side, and the ratio of their CPU seconds to ours."""
    ours, our_fingerprint = measured["here"]
    cells = [f"{cost.cpu:.1f} (wall {cost.wall:.1f}, {cost.megabytes:.0f} MB)" for cost, _ in measured.values()]
    for cost, fingerprint in list(measured.values())[1:]:
        cells.append(f"{cost.cpu / ours.cpu:.1f} ({largest_difference(our_fingerprint, fingerprint):.0e})")
    return f"| {name} | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="PYTHON", help="interpreter of an environment with upstream nnunetv2")
    parser.add_argument("--before", metavar="FOLDER", type=Path, help="an earlier checkout")
    parser.add_argument("--dataset", nargs=2, metavar=("RAW_FOLDER", "ID"), help="measure on this dataset only")
    parser.add_argument("--processes", type=int, help="workers (-np)")
    options = parser.parse_args(argv)
    sides: dict[str, tuple[str, Path | None]] = {"here": (sys.executable, REPOSITORY)}
    if options.before:
        sides["before"] = (sys.executable, options.before.resolve())
    if options.beside:
        sides["upstream"] = (options.beside, None)
    with tempfile.TemporaryDirectory() as scratch:
        if options.dataset:
            raw, datasets = Path(options.dataset[0]), {f"dataset {options.dataset[1]}": int(options.dataset[1])}
        else:
            raw, datasets = Path(scratch), make_datasets(Path(scratch))
        others = [f"{side} / here (fingerprints differ by)" for side in sides if side != "here"]
        print(f"| command | {' | '.join([f'{side}: CPU s' for side in sides] + others)} |")
        print("|---" * (1 + len(sides) + len(others)) + "|")
        for command in COMMANDS:
            for name, dataset_id in datasets.items():
                arguments = (raw, dataset_id, options.processes)
                measured = {side: measure(command, *where, *arguments) for side, where in sides.items()}
                print(row(f"{command.name}, {name}", measured), flush=True)


if __name__ == "__main__":
    main()

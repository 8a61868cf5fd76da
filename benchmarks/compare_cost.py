"""Measures the time of scoring 5 models on 100 cases of 256 x 256 x 32 voxels and three classes in two processes.

    python benchmarks/compare_cost.py [--cases 100] [--models 5] [--processes 2] [--folder FOLDER]

Creates references and predictions (.nii.gz) in a temporary folder: a large, a medium and a small organ with uneven
borders, and models with border errors of different size. Prints wall and CPU seconds of scoring all metrics, including
reading files and starting processes, and of scoring again from the cache. On a busy machine, CPU seconds divided by the
number of processes are more reliable than wall seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np  # noqa: E402 - the number of threads must be set before numpy starts them

SHAPE = (32, 256, 256)
SPACING = (0.8, 0.8, 3.0)  # x, y, z in mm
ORGANS = {  # label: centre and radii in voxels, z y x
    1: ((16, 128, 110), (14, 80, 90)),
    2: ((14, 100, 200), (9, 40, 30)),
    3: ((20, 190, 190), (4, 12, 10)),
}
CLASSES = {"large": 1, "middle": 2, "small": 3}
UNEVENNESS = 0.12  # of borders, relative to the radius
CELL = (4, 8, 8)  # voxels between independent values of the unevenness


def smooth_noise(random: np.random.Generator) -> np.ndarray:
    """Returns a continuous field of the image's shape with values of order 1."""
    from scipy.ndimage import zoom

    coarse = random.standard_normal([length // cell for length, cell in zip(SHAPE, CELL, strict=True)])
    return zoom(coarse.astype(np.float32), CELL, order=1, mode="nearest", grid_mode=True)


def organs(unevenness: np.ndarray) -> np.ndarray:
    """Returns a label map in which organ borders are displaced by a field, relative to the radii."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    axes = np.ogrid[tuple(slice(length) for length in SHAPE)]
    for label, (centre, radii) in ORGANS.items():
        squares = [((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)]
        distance = np.sqrt(sum(square.astype(np.float32) for square in squares))
        labels[distance + unevenness < 1] = label
    return labels


def write(path: Path, labels: np.ndarray) -> Path:
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def make_files(folder: Path, num_models: int, num_cases: int) -> tuple[list, dict[str, Path]]:
    """Writes all segmentations; returns the runs and the references. Models are ordered from best to worst."""
    from nnunetv2.comparison.scores import Run

    references: dict[str, Path] = {}
    predictions: list[dict[str, Path]] = [{} for _ in range(num_models)]
    for number in range(num_cases):
        random = np.random.default_rng(number)
        case = f"case_{number:03d}"
        truth = UNEVENNESS * smooth_noise(random)
        references[case] = write(folder / "labelsTr" / f"{case}.nii.gz", organs(truth))
        for model, files in enumerate(predictions):
            error = UNEVENNESS * (0.2 + 0.1 * model) * smooth_noise(random)
            files[case] = write(folder / f"model_{model}" / f"{case}.nii.gz", organs(truth + error))
    runs = [Run(f"model {model}", folder / f"model_{model}", files, {}) for model, files in enumerate(predictions)]
    return runs, references


def cpu_seconds() -> float:
    """Returns CPU seconds of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(argv: Sequence[str] | None = None) -> None:
    from nnunetv2.comparison.metric import METRICS
    from nnunetv2.comparison.scoring import score_runs
    from nnunetv2.comparison.settings import CompareSettings
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the temporary files go; by default that of the system")
    args = parser.parse_args(argv)
    settings = CompareSettings(metrics=tuple(METRICS))
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        runs, references = make_files(Path(scratch), args.models, args.cases)
        for what in ("scoring", "again, from the cache"):
            cpu, started = cpu_seconds(), time.perf_counter()
            table = score_runs(
                runs,
                references,
                CLASSES,
                SimpleITKIO(),
                settings,
                num_processes=args.processes,
                cache_folder=Path(scratch, "cache"),
            )
            cpu, wall = cpu_seconds() - cpu, time.perf_counter() - started
            print(f"{what:22} wall {wall:7.1f} s  CPU {cpu:7.1f} s  ({cpu / args.cases:.3f} s per case)")
        for metric, values in table.values.items():
            print(f"{metric:5}" + "".join(f"{mean:9.4f}" for mean in values.mean(axis=(1, 2))))


if __name__ == "__main__":
    main()

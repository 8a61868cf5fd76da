"""Compares time and accuracy of the resampling functions with upstream nnU-Net's, on one thread.

    python benchmarks/resampling.py --upstream UPSTREAM/bin/python

`--upstream` is the interpreter of a virtual environment with upstream's nnunetv2; both are measured in the same run, on
the same arrays. Without it, upstream's method is reproduced with skimage, scipy and batchgenerators. Each row shows the
minimum CPU and wall time of several calls, their ratios, and the largest difference between the results (for labels:
the number of different voxels).
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np  # noqa: E402 - the number of threads must be set before numpy starts them

OLD_SHAPE, NEW_SHAPE = (64, 128, 128), (96, 192, 192)
ISOTROPIC, ANISOTROPIC = [1.0, 1.0, 1.0], [4.0, 1.0, 1.0]
Resample = Callable[..., np.ndarray]


def workloads() -> dict[str, tuple[np.ndarray, dict]]:
    """Returns array and keyword arguments of each row of the table."""
    random = np.random.default_rng(0)

    def normal(channels: int) -> np.ndarray:
        return random.standard_normal((channels, *OLD_SHAPE)).astype(np.float32)

    def settings(is_seg: bool, order: int, spacing: Sequence[float] = ISOTROPIC) -> dict:
        return {
            "is_seg": is_seg,
            "order": order,
            "current_spacing": spacing,
            "new_spacing": [s * 2 / 3 for s in spacing],
        }

    return {
        "image, order 3": (normal(1), settings(False, 3)),
        "image, order 3, separate z": (normal(1), settings(False, 3, ANISOTROPIC)),
        "4 labels, order 1": (_blobs(random, 4), settings(True, 1)),
        "4 labels, order 1, separate z": (_blobs(random, 4), settings(True, 1, ANISOTROPIC)),
        "4 labels at random, order 1": (random.integers(0, 4, (1, *OLD_SHAPE)).astype(np.int8), settings(True, 1)),
        "logits, 3 classes, order 1": (normal(3), settings(False, 1)),
        "logits, 10 classes, order 1": (normal(10), settings(False, 1)),
    }


def _blobs(random: np.random.Generator, number: int) -> np.ndarray:
    """Creates labels with smooth borders and about as many border voxels as an abdominal CT with organs."""
    from scipy.ndimage import gaussian_filter

    fields = [gaussian_filter(random.standard_normal(OLD_SHAPE), 6) for _ in range(number)]
    return np.argmax(fields, axis=0)[None].astype(np.int8)


def measure(resample: Resample, array: np.ndarray, settings: dict, repeats: int) -> tuple[np.ndarray, float, float]:
    """Returns the result and the minimum CPU and wall time in seconds."""
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        result = resample(array, NEW_SHAPE, order_z=0, force_separate_z=None, **settings)
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    return result, min(cpu), min(wall)


def by_library_calls(
    array: np.ndarray,
    new_shape: Sequence[int],
    *,
    is_seg: bool,
    order: int,
    current_spacing: Sequence[float],
    **_: object,
) -> np.ndarray:
    """Upstream's method from public library calls: per channel in float64, slice by slice if z is separate."""
    from batchgenerators.augmentations.utils import resize_segmentation
    from scipy.ndimage import map_coordinates
    from skimage.transform import resize

    def plain(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        if is_seg:
            return resize_segmentation(volume, shape, order)
        return resize(volume, shape, order, mode="edge", anti_aliasing=False)

    result = np.zeros((len(array), *new_shape), array.dtype)
    for channel, out in zip(array.astype(float), result, strict=True):
        if max(current_spacing) / min(current_spacing) <= 3:
            out[...] = plain(channel, new_shape)
            continue
        planes = np.stack([plain(plane, new_shape[1:]) for plane in channel])
        coordinates = np.indices(new_shape, dtype=float)
        coordinates[0] = len(planes) / new_shape[0] * (coordinates[0] + 0.5) - 0.5
        out[...] = map_coordinates(planes, coordinates, order=0, mode="nearest")
    return result


def run(resample: Resample, target: Path, repeats: int) -> None:
    """Measures all workloads and writes results and times to a .npz file."""
    measured = {name: measure(resample, *load, repeats) for name, load in workloads().items()}
    results = {name: result for name, (result, _, _) in measured.items()}
    times = np.array([(cpu, wall) for _, cpu, wall in measured.values()])
    np.savez(target, times=times, **results)


def installed_function() -> Resample:
    """Returns the function of the nnunetv2 installed for this interpreter."""
    import torch

    torch.set_num_threads(1)
    module = importlib.import_module("nnunetv2.preprocessing.resampling.default_resampling")
    return module.resample_data_or_seg_to_shape


def compare(upstream: str | None, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("other.npz", "ours.npz")]
        if upstream:
            # In another folder and without PYTHONPATH, so that the interpreter imports its own nnunetv2, not this one.
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            command = [upstream, str(Path(__file__).resolve()), "--worker", str(files[0]), "--repeats", str(repeats)]
            subprocess.run(command, check=True, cwd=folder, env=environment)
        else:
            run(by_library_calls, files[0], repeats)
        run(installed_function(), files[1], repeats)
        with np.load(files[0]) as other, np.load(files[1]) as ours:
            _print_table(other, ours, "upstream" if upstream else "library calls")


def _print_table(other: dict[str, np.ndarray], ours: dict[str, np.ndarray], label: str) -> None:
    print(f"{OLD_SHAPE} -> {NEW_SHAPE}, one thread; seconds of CPU / wall time")
    print(f"{'':32}{label:>16}{'ours':>16}{'times faster':>16}{'largest difference':>22}")
    for name, before, after in zip(workloads(), other["times"], ours["times"], strict=True):
        if other[name].dtype.kind == "i":
            difference = f"{(other[name] != ours[name]).sum()} voxels"
        else:
            difference = f"{np.abs(other[name] - ours[name]).max():.1e}"
        columns = [f"{before[0]:.3f} / {before[1]:.3f}", f"{after[0]:.3f} / {after[1]:.3f}"]
        columns.append(f"{before[0] / after[0]:.1f} / {before[1] / after[1]:.1f}")
        print(f"{name:32}" + "".join(f"{column:>16}" for column in columns) + f"{difference:>22}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", metavar="PYTHON", help="interpreter of an environment with upstream's nnunetv2")
    parser.add_argument(
        "--repeats", type=int, default=3, help="calls of each, of which the fastest counts (default: 3)"
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        run(installed_function(), options.worker, options.repeats)
    else:
        compare(options.upstream, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compares time and memory of exporting predictions with many classes: resampling of the logits, then labels.

    python benchmarks/export.py --upstream UPSTREAM/bin/python --before ../a_checkout_of_an_earlier_commit

`--upstream` is the interpreter of a virtual environment with upstream's nnunetv2, `--before` the root of another
checkout of this repository. All export the same float16 logits on one thread, in processes of their own, one after the
other and several times. The table shows the median of the CPU seconds, the peak memory of the process, and how many
voxels differ from ours.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np  # noqa: E402 - the number of threads must be set before numpy starts them

OLD_SHAPE, NEW_SHAPE = (80, 128, 128), (120, 192, 192)
NETWORK_SPACING, ORIGINAL_SPACING = [1.5, 1.5, 1.5], [1.0, 1.0, 1.0]
REPOSITORY = Path(__file__).resolve().parents[1]


def write_logits(path: Path, num_classes: int) -> None:
    """Writes smooth logits, of which several classes are nearly equal at every border, as a network's are."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    logits = np.lib.format.open_memmap(path, "w+", np.float16, (num_classes, *OLD_SHAPE))
    for out in logits:
        out[...] = 60 * gaussian_filter(random.standard_normal(OLD_SHAPE, dtype=np.float32), 5)
    logits.flush()


def export(logits_file: str, regions: bool, labels_file: str) -> None:
    """Exports with the nnunetv2 that this interpreter finds; prints CPU seconds and MB."""
    import torch

    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    torch.set_num_threads(1)
    logits = np.load(logits_file)
    number = len(logits)
    if regions:
        nested = {f"region {i}": list(range(i, number + 1)) for i in range(1, number + 1)}
        labels = LabelManager({"background": 0, **nested}, list(range(1, number + 1)))
    else:
        labels = LabelManager({"background": 0, **{f"class {i}": i for i in range(1, number)}}, None)
    # The settings of default plans.
    resample = functools.partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    configuration = SimpleNamespace(spacing=NETWORK_SPACING, resampling_fn_probabilities=resample)
    properties = {
        "shape_after_cropping_and_before_resampling": NEW_SHAPE,
        "shape_before_cropping": NEW_SHAPE,
        "bbox_used_for_cropping": [[0, size] for size in NEW_SHAPE],
        "spacing": ORIGINAL_SPACING,
    }
    started = time.process_time()
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, num_threads_torch=1
    )
    seconds = time.process_time() - started
    np.save(labels_file, segmentation)
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def measure(python: str, root: Path | None, folder: Path, regions: bool, labels_file: Path) -> tuple[float, float]:
    """Returns CPU seconds and MB of one export in another process."""
    environment = os.environ | ({} if root is None else {"PYTHONPATH": str(root)})
    if root is None:
        environment.pop("PYTHONPATH", None)
    command = [python, str(Path(__file__).resolve()), "--worker", str(folder / "logits.npy"), str(labels_file)]
    # Run in another folder, so that the interpreter imports its own nnunetv2 and not this repository's.
    printed = subprocess.run(
        command + ["--regions"] * regions, check=True, cwd=folder, env=environment, capture_output=True, text=True
    ).stdout
    seconds, megabytes = map(float, printed.split()[-2:])
    return seconds, megabytes


def compare(methods: dict[str, tuple[str, Path | None]], num_classes: int, regions: bool, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_logits(folder / "logits.npy", num_classes)
        labels = {method: folder / f"{method}.npy" for method in methods}
        measured: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
        for _ in range(repeats):
            for method, (python, root) in methods.items():
                measured[method].append(measure(python, root, folder, regions, labels[method]))
        ours = np.load(labels["ours"])
        fastest = median(seconds for seconds, _ in measured["ours"])
        print(f"{num_classes} {'regions' if regions else 'classes'}, {OLD_SHAPE} -> {NEW_SHAPE}, one thread")
        print(f"{'':10}{'CPU s':>8}{'ours is faster by':>20}{'peak MB':>10}{'other voxels':>14}")
        for method, results in measured.items():
            seconds, megabytes = median(s for s, _ in results), max(m for _, m in results)
            differing = int((np.load(labels[method]) != ours).sum())
            print(f"{method:10}{seconds:8.2f}{seconds / fastest:20.1f}{megabytes:10.0f}{differing:14}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", metavar="PYTHON", help="interpreter of an environment with upstream's nnunetv2")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="root of another checkout")
    parser.add_argument("--classes", type=int, default=60, help="number of outputs of the network (default: 60)")
    parser.add_argument("--regions", action="store_true", help="the outputs are regions")
    parser.add_argument("--repeats", type=int, default=3, help="exports of each (default: 3)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        export(options.worker[0], options.regions, options.worker[1])
        return 0
    methods: dict[str, tuple[str, Path | None]] = {"ours": (sys.executable, REPOSITORY)}
    if options.before:
        methods = {"before": (sys.executable, options.before.resolve()), **methods}
    if options.upstream:
        methods = {"upstream": (options.upstream, None), **methods}
    compare(methods, options.classes, options.regions, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())

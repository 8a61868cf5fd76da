"""Compares sliding-window prediction and evaluation in one process with upstream nnU-Net's, on one thread.

    python benchmarks/inference_and_evaluation.py --upstream UPSTREAM/bin/python [--before FOLDER] [--repeats 3]

`--upstream` is the interpreter of an environment with upstream's nnunetv2, `--before` the root of another checkout of
this repository. All do the same work on the same arrays and files, in turn, each in a process of its own that has
imported its modules before. Prints a Markdown table: medians of CPU seconds, their ratio to ours, what the network
alone takes of a prediction, and the largest difference of the results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np  # noqa: E402 - the number of threads must be set before numpy starts them

REPOSITORY = Path(__file__).resolve().parents[1]
VOLUME, PATCH, CLASSES = (64, 128, 128), (48, 96, 96), 3
Times = dict[str, float]


def write_inputs(folder: Path) -> None:
    """Writes 40 pairs of label maps of the size of a hippocampus, and one of 128 x 128 x 128 voxels with 30 labels."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    for name, number, shape, labels in (("small", 40, (36, 50, 36), 3), ("large", 1, (128, 128, 128), 31)):
        for case in range(number):
            fields = np.stack([gaussian_filter(random.standard_normal(shape), 4) for _ in range(labels)])
            for kind in ("references", "predictions"):
                _save(folder / name / kind / f"case{case:02d}.nii.gz", np.argmax(fields, axis=0).astype(np.uint8))
                fields += random.standard_normal(fields.shape) * fields.std() / 20
    np.save(folder / "image.npy", random.standard_normal((1, *VOLUME)).astype(np.float32))


def _save(path: Path, labels: np.ndarray) -> None:
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path), useCompression=True)


def predict(folder: Path) -> tuple[Times, float]:
    """Predicts a volume with a 3-D U-Net, half a patch per step and eight mirrorings; returns times and a mean."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = PlainConvUNet(
        1, 4, [8, 16, 32, 64], torch.nn.Conv3d, 3, [1, 2, 2, 2], 2, CLASSES, 2, conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d, nonlin=torch.nn.LeakyReLU,
    ).eval()  # fmt: skip
    inside = [0.0]
    _count_time(network, inside)
    predictor = nnUNetPredictor(0.5, True, True, False, torch.device("cpu"), False, False, False)
    predictor.network = network
    predictor.configuration_manager = type("Configuration", (), {"patch_size": PATCH})()
    predictor.label_manager = type("Labels", (), {"num_segmentation_heads": CLASSES})()
    predictor.allowed_mirroring_axes = (0, 1, 2)
    image = torch.from_numpy(np.load(folder / "image.npy"))
    start = time.process_time()
    with torch.inference_mode():
        logits = predictor.predict_sliding_window_return_logits(image)
    seconds = time.process_time() - start
    return {"all": seconds, "network": inside[0]}, float(logits.float().abs().mean())


def _count_time(network: Any, total: list[float]) -> None:
    forward = network.forward

    def counted(x: Any) -> Any:
        start = time.process_time()
        result = forward(x)
        total[0] += time.process_time() - start
        return result

    network.forward = counted


def evaluate(folder: Path) -> tuple[Times, float]:
    """Evaluates a folder of label maps; returns times and the mean Dice of the foreground."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    pairs = [(str(path), str(folder / "predictions" / path.name)) for path in sorted(folder.glob("references/*"))]
    labels = range(1, 31 if len(pairs) == 1 else 3)
    compute_metrics(*pairs[0], SimpleITKIO(), list(labels))  # imports what it needs
    start = time.process_time()
    found = [compute_metrics(*pair, SimpleITKIO(), list(labels)) for pair in pairs]
    seconds = time.process_time() - start
    return {"all": seconds}, float(np.nanmean([case["metrics"][label]["Dice"] for case in found for label in labels]))


WORK: dict[str, Callable[[Path], tuple[Times, float]]] = {
    f"sliding window, {CLASSES} classes, {VOLUME}, patches of {PATCH}, mirrored": predict,
    "evaluation of 40 cases of 36 x 50 x 36, 2 labels": lambda folder: evaluate(folder / "small"),
    "evaluation of 1 case of 128 x 128 x 128, 30 labels": lambda folder: evaluate(folder / "large"),
}


def measure(name: str, python: str, checkout: Path | None, folder: Path) -> tuple[Times, float]:
    """Does one row of the table in another process."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout)
    command = [python, str(Path(__file__).resolve()), "--worker", name, str(folder)]
    printed = subprocess.run(
        command, check=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    times, result = json.loads(printed.splitlines()[-1])
    return times, result


def compare(sides: dict[str, tuple[str, Path | None]], repeats: int) -> None:
    others = [side for side in sides if side != "here"]
    heads = [f"{side}: CPU s" for side in sides] + [f"{side} / here" for side in others]
    print(f"| work | {' | '.join([*heads, 'network alone', 'difference'])} |")
    print("|---" * (len(heads) + 3) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        for work in WORK:
            runs: dict[str, list[tuple[Times, float]]] = {side: [] for side in sides}
            for _ in range(repeats):
                for side, where in sides.items():
                    runs[side].append(measure(work, *where, folder))
            print(_row(work, runs), flush=True)


def _row(name: str, runs: dict[str, list[tuple[Times, float]]]) -> str:
    seconds = {side: statistics.median(times["all"] for times, _ in done) for side, done in runs.items()}
    cells = [f"{value:.3f}" for value in seconds.values()]
    cells += [f"{value / seconds['here']:.2f}" for side, value in seconds.items() if side != "here"]
    shares = [times["network"] / times["all"] for times, _ in runs["here"] if "network" in times]
    cells.append(f"{100 * statistics.median(shares):.0f} %" if shares else "")
    results = [result for done in runs.values() for _, result in done]
    return f"| {name} | {' | '.join(cells)} | {max(results) - min(results):.0e} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", metavar="PYTHON", help="interpreter of an environment with upstream's nnunetv2")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="root of another checkout")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        name, folder = options.worker
        print(json.dumps(WORK[name](Path(folder))))
        return
    sides: dict[str, tuple[str, Path | None]] = {"here": (sys.executable, REPOSITORY)}
    if options.before:
        sides["before"] = (sys.executable, options.before.resolve())
    if options.upstream:
        sides["upstream"] = (options.upstream, None)
    compare(sides, options.repeats)


if __name__ == "__main__":
    main()

"""Measures how time and memory of preprocessing, prediction, evaluation and comparison grow with their input.

    python benchmarks/growth.py [--steps preprocess predict evaluate compare] [--axes cases volume labels] [--quick]

One of three sizes grows at a time: the number of cases, of voxels per case, and of labels. Each measurement is a
process of its own, on one thread and without workers. It prints a Markdown table: CPU seconds after the imports, per
million voxels of all cases, and the peak memory that the step adds to them; beside each size, the exponent with which
these grew from the size before. 1 is proportional; what is above grows faster than the input, what is below has a
fixed part. Tiles do not overlap, because their share of overlap grows with the volume by definition.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ["nnUNet_def_n_proc"] = "0"

import numpy as np  # noqa: E402 - the number of threads must be set before numpy starts them


class Cost(NamedTuple):
    seconds: float
    megabytes: float


REPOSITORY = Path(__file__).resolve().parents[1]
TINY_MODEL = REPOSITORY / "tests" / "recorded" / "inference" / "models" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
PATCH = 32
NETWORK_SPACING, SPACING = 1.25, 1.0  # mm
BLOBS_PER_AXIS = 8  # each volume has the same structures at its own resolution
ENDING = ".nii"
TOO_FAST = 1.15  # an exponent above is marked
WORTH_AN_EXPONENT = Cost(0.05, 50)  # less is lost in the noise of the clock, and in memory that the imports left free


@dataclass(frozen=True)
class Size:
    """What one measurement has to do.

    Attributes:
        cases: number of cases.
        side: voxels of each along every axis.
        labels: with the background.
    """

    cases: int
    side: int
    labels: int

    @property
    def voxels(self) -> int:
        return self.cases * self.side**3


AXES = {
    "cases": [Size(cases, 32, 4) for cases in (10, 40, 160)],
    "volume": [Size(1, side, 4) for side in (64, 128, 256)],
    "labels": [Size(1, 64, labels) for labels in (2, 20, 100)],
}
QUICK_AXES = {
    "cases": [Size(cases, 16, 3) for cases in (2, 4)],
    "volume": [Size(1, side, 3) for side in (16, 32)],
    "labels": [Size(1, 32, labels) for labels in (2, 8)],
}


def make_files(folder: Path, size: Size) -> None:
    """Writes images, reference label maps, and two predictions that differ from these at some borders."""
    import nibabel

    def write(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([SPACING] * 3 + [1])), path)

    blob = np.arange(size.side) * BLOBS_PER_AXIS // size.side
    for case in range(size.cases):
        random = np.random.default_rng(case)
        values = random.permutation(BLOBS_PER_AXIS**3).reshape([BLOBS_PER_AXIS] * 3) % size.labels
        labels = values[np.ix_(blob, blob, blob)].astype(np.uint8)
        image = labels + random.standard_normal(labels.shape, dtype=np.float32)
        write(folder / "images" / f"case_{case:03d}_0000{ENDING}", image)
        write(folder / "labels" / f"case_{case:03d}{ENDING}", labels)
        for model in (1, 2):
            write(folder / f"model_{model}" / f"case_{case:03d}{ENDING}", np.roll(labels, model, axis=case % 3))


def case_names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(ENDING) for path in (folder / "labels").iterdir())


def dataset_json(size: Size) -> dict[str, Any]:
    labels = {"background": 0, **{f"label {i}": i for i in range(1, size.labels)}}
    return {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": size.cases, "file_ending": ENDING}


def plans() -> dict[str, Any]:
    """Those of the recorded model of the tests, isotropic and with larger patches."""
    content = json.loads((TINY_MODEL / "plans.json").read_text())
    configuration = content["configurations"]["3d_fullres"]
    configuration |= {"patch_size": [PATCH] * 3, "spacing": [NETWORK_SPACING] * 3}
    return content | {"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}


def preprocess(folder: Path, size: Size) -> Callable[[], object]:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans())
    shared = manager, manager.get_configuration("3d_fullres"), dataset_json(size)
    (folder / "preprocessed").mkdir()

    def run() -> None:
        for case in case_names(folder):
            image, label = folder / "images" / f"{case}_0000{ENDING}", folder / "labels" / f"{case}{ENDING}"
            target = str(folder / "preprocessed" / case)
            DefaultPreprocessor(verbose=False).run_case_save(target, [str(image)], str(label), *shared)

    return run


def predict(folder: Path, size: Size) -> Callable[[], object]:
    import torch

    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans())
    configuration = manager.get_configuration("3d_fullres")
    torch.manual_seed(0)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        size.labels,
        deep_supervision=False,
    )
    predictor = nnUNetPredictor(1.0, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(network, manager, configuration, None, dataset_json(size), "nnUNetTrainer", None)
    return lambda: predictor.predict_from_files_sequential(str(folder / "images"), str(folder / "predicted"))


def evaluate(folder: Path, size: Size) -> Callable[[], object]:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    folders = str(folder / "labels"), str(folder / "model_1"), str(folder / "summary.json")
    labels = list(range(1, size.labels))
    return lambda: compute_metrics_on_folder(*folders, SimpleITKIO(), ENDING, labels, num_processes=1)


def compare(folder: Path, size: Size) -> Callable[[], object]:
    from nnunetv2.comparison import statistics
    from nnunetv2.comparison.scores import Run
    from nnunetv2.comparison.scoring import score_runs
    from nnunetv2.comparison.settings import CompareSettings
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    def files(name: str) -> dict[str, Path]:
        return {case: folder / name / f"{case}{ENDING}" for case in case_names(folder)}

    settings = CompareSettings()
    runs = [Run(f"model {i}", folder / f"model_{i}", files(f"model_{i}"), {}) for i in (1, 2)]
    classes = {f"label {i}": i for i in range(1, size.labels)}

    def run() -> None:
        scores = score_runs(runs, files("labels"), classes, SimpleITKIO(), settings, num_processes=1)
        statistics.pairs(scores, settings)
        statistics.summaries(scores, settings)

    return run


STEPS = {"preprocess": preprocess, "predict": predict, "evaluate": evaluate, "compare": compare}


def work(step: str, folder: Path, size: Size) -> Cost:
    """Measures one step in this process, after it has been run on a small case: imports, tables and memory of those."""
    with tempfile.TemporaryDirectory() as name:
        small = Size(1, 16, size.labels if step == "evaluate" else 2)
        make_files(Path(name), small)
        STEPS[step](Path(name), small)()
    run = STEPS[step](folder, size)
    before, started = peak_megabytes(), time.process_time()
    run()
    return Cost(time.process_time() - started, peak_megabytes() - before)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(step: str, size: Size) -> Cost:
    """Measures one step in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name), size)
        words = [sys.executable, __file__, "--worker", step, name, json.dumps(asdict(size))]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        run = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{step} of {size} failed with exit code {run.returncode}; its error is above")
    return Cost(*map(float, run.stdout.split()[-2:]))


def exponent(before: float, after: float, growth: float) -> float:
    """The p in `after = before * growth ** p`."""
    return math.log(max(after, 1e-9) / before) / math.log(growth)


def in_words(value: float) -> str:
    return f"{value:.2f}{' !' if value > TOO_FAST else ''}"


def rows_of(step: str, axis: str, sizes: Sequence[Size]) -> list[str]:
    rows, before = [], None
    for size in sizes:
        cost = measure(step, size)
        exponents = ["", ""]
        if before is not None:
            old_size, old_cost = before
            growth = size.voxels / old_size.voxels if axis != "labels" else size.labels / old_size.labels
            exponents = [
                in_words(exponent(old, new, growth)) if old >= least else "-"
                for old, new, least in zip(old_cost, cost, WORTH_AN_EXPONENT, strict=True)
            ]
        value = f"{size.side}³" if axis == "volume" else str(getattr(size, axis))
        per_voxel = cost.seconds / size.voxels * 1e6
        rows.append(
            f"| {step} | {axis} | {value} | {cost.seconds:.2f} | {per_voxel:.3f} | {exponents[0]} "
            f"| {cost.megabytes:.0f} | {exponents[1]} |"
        )
        before = size, cost
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="default: all")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="what grows (default: each)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see whether it runs")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        step, folder, size = options.worker
        print(*work(step, Path(folder), Size(**json.loads(size))))
        return 0
    print("| step | what grows | size | CPU s | µs per voxel | exponent | MB | exponent |")
    print("|---|---|---|---|---|---|---|---|")
    for step in options.steps:
        for axis in options.axes:
            for row in rows_of(step, axis, (QUICK_AXES if options.quick else AXES)[axis]):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

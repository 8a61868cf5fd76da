"""Measures the cost of training batches in one process: loading alone, and loading with augmentation.

    python benchmarks/data_loading.py PREPROCESSED_DATASET CONFIGURATION [--plans nnUNetPlans] [--batches 20]
        [--beside PYTHON [--repeats 3]]

PREPROCESSED_DATASET is a folder below nnUNet_preprocessed. Prints one JSON object; compare CPU milliseconds, because
wall time depends on other load. Batches are seeded, so that upstream draws the same ones.

PYTHON is the interpreter of an environment with upstream nnU-Net, or with an earlier version of this repository. Both
measure in turn; printed are the medians and the ratio of CPU time, beside to here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


def measure(loader: Any, num_batches: int) -> dict[str, float]:
    """Returns mean milliseconds per batch, after one warm-up batch."""
    next(loader)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(num_batches):
        next(loader)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu_ms": round(1000 * cpu / num_batches, 2), "wall_ms": round(1000 * wall / num_batches, 2)}


def make_loaders(dataset: Path, plans_name: str, configuration_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the default trainer's training loader without and with augmentation, and its description."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(dataset / f"{plans_name}.json"))
    configuration = plans.get_configuration(configuration_name)
    labels = plans.get_label_manager(json.loads((dataset / "dataset.json").read_text(encoding="utf-8")))
    trainer = SimpleNamespace(configuration_manager=configuration, print_to_log_file=lambda *_: None)
    geometry = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    rotation, in_slices, initial_patch_size, mirror_axes = geometry
    scales = 1 / np.cumprod(np.vstack(configuration.pool_op_kernel_sizes), axis=0)[:-1]
    transforms = nnUNetTrainer.get_training_transforms(
        configuration.patch_size,
        rotation,
        [list(scale) for scale in scales],
        mirror_axes,
        in_slices,
        use_mask_for_norm=configuration.use_mask_for_norm,
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label,
    )
    folder = str(dataset / configuration.data_identifier)

    def loader(with_transforms: Any) -> nnUNetDataLoader:
        cases = infer_dataset_class(folder)(folder)
        sizes = configuration.batch_size, initial_patch_size, configuration.patch_size
        return nnUNetDataLoader(cases, *sizes, labels, 0.33, transforms=with_transforms)

    description = {
        "batch_size": configuration.batch_size,
        "patch_size": list(map(int, configuration.patch_size)),
        "initial_patch_size": list(map(int, initial_patch_size)),
    }
    return {"load": loader(None), "load and augment": loader(transforms)}, description


def measure_here(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the nnunetv2 of this interpreter; one seed per loader."""
    torch.set_num_threads(1)
    loaders, results = make_loaders(arguments.dataset, arguments.plans, arguments.configuration)
    for name, loader in loaders.items():
        np.random.seed(0)
        torch.manual_seed(0)
        results[name] = measure(loader, arguments.batches)
    return results


def measure_in_turn(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures this interpreter and another one alternately, each in processes of its own."""
    options = [str(arguments.dataset), arguments.configuration, "--plans", arguments.plans]
    options += ["--batches", str(arguments.batches)]
    # The other environment must not find this checkout.
    elsewhere = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    runs: dict[str, list[dict[str, Any]]] = {"here": [], "beside": []}
    for _ in range(arguments.repeats):
        for name, python, environment in (("here", sys.executable, None), ("beside", arguments.beside, elsewhere)):
            command = [python, __file__, *options]
            output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
            runs[name].append(json.loads(output.splitlines()[-1]))
    medians = {
        name: {part: statistics.median(run[part]["cpu_ms"] for run in done) for part in ("load", "load and augment")}
        for name, done in runs.items()
    }
    ratio = {part: round(medians["beside"][part] / medians["here"][part], 2) for part in medians["here"]}
    return {"cpu_ms": medians, "ratio": ratio}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("--plans", default="nnUNetPlans")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--beside", metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    print(json.dumps(measure_in_turn(arguments) if arguments.beside else measure_here(arguments)))


if __name__ == "__main__":
    main()

"""Measures the cost of training batches in one process: loading alone, and loading with augmentation.

    python benchmarks/data_loading.py PREPROCESSED_DATASET CONFIGURATION [--plans nnUNetPlans] [--batches 20]

PREPROCESSED_DATASET is a folder below nnUNet_preprocessed. Prints one JSON object; compare CPU milliseconds, because
wall time depends on other load. Also works with upstream's interpreter.
"""

from __future__ import annotations

import argparse
import json
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("--plans", default="nnUNetPlans")
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    np.random.seed(0)
    torch.manual_seed(0)
    loaders, description = make_loaders(arguments.dataset, arguments.plans, arguments.configuration)
    print(json.dumps(description | {name: measure(loader, arguments.batches) for name, loader in loaders.items()}))


if __name__ == "__main__":
    main()

"""Fingerprints of seeded training batches and patch geometries, of whichever nnunetv2 the interpreter finds.

Recorded with upstream 2.8.1, PREPROCESSED being the oracle's recorded/preprocessed:
    UPSTREAM/bin/python tests/recorded/make_loader_batches.py PREPROCESSED tests/recorded/loader_batches.json
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

NUM_BATCHES = 4
RECORDED = [  # dataset, configuration
    ("Dataset901_Syn2DRGB", "2d"),
    ("Dataset902_Syn3DAnisoCT", "3d_tiny"),
    ("Dataset903_SynMRIRegions", "3d_tiny"),
    ("Dataset904_SynIgnore", "3d_tiny"),
]
PATCH_SIZES = [
    (256, 256),
    (320, 192),
    (48, 56),
    (80, 160, 160),
    (16, 64, 64),
    (128, 128, 128),
    (40, 256, 224),
    (7, 9, 30),
]


class MemoryCases:
    """Four made-up cases of the loader's dataset interface, with two channels and labels 0 to 3."""

    def __init__(self, with_previous_stage: bool = False, ignore_label: int | None = None) -> None:
        self.identifiers = [f"case_{number}" for number in range(4)]
        self.with_previous_stage = with_previous_stage
        self.ignore_label = ignore_label

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[str, Any]]:
        number = int(identifier[-1])
        shape = (10 + 3 * number, 28 + number, 30 - number)
        z, y, x = np.indices(shape)
        image = np.stack([np.sin(0.3 * y + number) * np.cos(0.2 * x), np.sin(0.25 * x * (z + 1) / 5)]).astype(
            np.float32
        )
        seg = (image[0] > 0.3).astype(np.int16) + (image[0] > 0.6) + (image[1] > 0.7)
        seg[(y < 4) & (x < 5)] = -1
        if number == 3:
            seg[seg > 0] = 0  # a case without foreground
        previous = np.roll(seg.clip(0), 2, axis=1) if self.with_previous_stage else None
        return image, seg[None], previous, {"class_locations": self._locations(seg)}

    def _locations(self, seg: np.ndarray) -> dict[Any, Any]:
        keys: list[Any] = [1, 2, (1, 2)] if self.ignore_label is not None else [1, 2, 3]
        locations = {key: np.argwhere(np.isin(seg, key)[None]) for key in keys}
        if self.ignore_label is not None:
            locations[(-1, 0, 1, 2)] = np.argwhere((seg != self.ignore_label)[None])
        return {key: found if len(found) else [] for key, found in locations.items()}


def training_pipeline(*args: Any, **kwargs: Any) -> Any:
    try:
        from nnunetv2.training.data_augmentation.default_pipeline import training_transforms
    except ImportError:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        training_transforms = nnUNetTrainer.get_training_transforms
    return training_transforms(*args, **kwargs)


def validation_pipeline(*args: Any, **kwargs: Any) -> Any:
    try:
        from nnunetv2.training.data_augmentation.default_pipeline import validation_transforms
    except ImportError:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        validation_transforms = nnUNetTrainer.get_validation_transforms
    return validation_transforms(*args, **kwargs)


def geometry(patch_size: tuple[int, ...]) -> Any:
    try:
        from nnunetv2.training.data_augmentation.patch_geometry import augmentation_geometry

        return augmentation_geometry(patch_size)
    except ImportError:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        trainer = SimpleNamespace(
            configuration_manager=SimpleNamespace(patch_size=patch_size), print_to_log_file=lambda *_: None
        )
        return nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)


def fingerprint(batch: dict[str, Any]) -> list[Any]:
    """The drawn cases, and for the image and each target: size, sum, and a sum that depends on the order."""
    targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
    numbers = []
    for tensor in (batch["data"], *targets):
        flat = tensor.double().flatten()
        position = torch.cos(torch.arange(len(flat), dtype=torch.float64))
        numbers += [len(flat), round(float(flat.sum()), 3), round(float((flat * position).sum()), 3)]
    return [" ".join(map(str, batch["keys"])), numbers]


def batches(loader: Any, seed: int) -> list[Any]:
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return [fingerprint(next(loader)) for _ in range(NUM_BATCHES)]


def synthetic_loaders() -> dict[str, Any]:
    """2-D; dummy-2D cascade with regions and ignore label; 3-D with drawn oversampling; validation."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    plain = SimpleNamespace(all_labels=[0, 1, 2, 3], has_ignore_label=False)
    sparse = SimpleNamespace(all_labels=[0, 1, 2], has_ignore_label=True)
    angle = geometry((24, 20))[0]
    scales = [[1.0, 1.0], [0.5, 0.5]]
    return {
        "2d": nnUNetDataLoader(
            MemoryCases(), 6, geometry((24, 20))[2], (24, 20), plain, 0.33,
            transforms=training_pipeline((24, 20), angle, scales, (0, 1), False, use_mask_for_norm=[True, False]),
        ),
        "dummy 2d, cascade, regions, ignore": nnUNetDataLoader(
            MemoryCases(True, ignore_label=3), 3, geometry((6, 20, 20))[2], (6, 20, 20), sparse, 0.33,
            transforms=training_pipeline(
                (6, 20, 20), angle, [[1.0, 1.0, 1.0], [1.0, 0.5, 0.5]], (0, 1, 2), True, is_cascaded=True,
                foreground_labels=[1, 2], regions=[(1, 2), (2,)], ignore_label=3,
            ),
        ),
        "3d, drawn oversampling": nnUNetDataLoader(
            MemoryCases(), 2, geometry((12, 16, 18))[2], (12, 16, 18), plain, 0.6, [0.4, 0.3, 0.2, 0.1],
            (2, 0, 5), True, transforms=training_pipeline((12, 16, 18), geometry((12, 16, 18))[0], None, (0, 2), False),
        ),
        "validation, cascade": nnUNetDataLoader(
            MemoryCases(True), 3, (12, 24, 24), (12, 24, 24), plain, 0.33,
            transforms=validation_pipeline([[1.0, 1.0, 1.0]], is_cascaded=True, foreground_labels=[1, 2, 3]),
        ),
        "no transforms": nnUNetDataLoader(MemoryCases(), 2, (16, 16), (16, 16), plain, 1.0),
    }  # fmt: skip


def recorded_loader(preprocessed: Path, dataset: str, configuration_name: str) -> Any:
    """The loader that the default trainer makes for fold 0 of a preprocessed dataset."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = preprocessed / dataset
    plans = PlansManager(str(folder / "nnUNetPlans.json"))
    configuration = plans.get_configuration(configuration_name)
    labels = plans.get_label_manager(json.loads((folder / "dataset.json").read_text()))
    train = json.loads((folder / "splits_final.json").read_text())[0]["train"]
    patch_size = configuration.patch_size
    rotation, dummy_2d, initial_patch_size, mirror_axes = geometry(patch_size)
    strides = np.cumprod(np.vstack(configuration.pool_op_kernel_sizes), axis=0)
    transforms = training_pipeline(
        patch_size, rotation, [list(scale) for scale in 1 / strides][:-1], mirror_axes, dummy_2d,
        use_mask_for_norm=configuration.use_mask_for_norm, foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None, ignore_label=labels.ignore_label,
    )  # fmt: skip
    cases = nnUNetDatasetBlosc2(str(folder / configuration.data_identifier), train)
    return nnUNetDataLoader(
        cases, configuration.batch_size, initial_patch_size, patch_size, labels, 0.33, transforms=transforms
    )


def geometries() -> dict[str, Any]:
    results = {}
    for patch_size in PATCH_SIZES:
        rotation, dummy_2d, initial, mirror_axes = geometry(patch_size)
        entry = [
            [round(float(angle), 8) for angle in rotation],
            bool(dummy_2d),
            list(map(int, initial)),
            list(mirror_axes),
        ]
        results[" ".join(map(str, patch_size))] = entry
    return results


def main(preprocessed: Path, target: Path) -> None:
    synthetic = {name: batches(loader, seed) for seed, (name, loader) in enumerate(synthetic_loaders().items())}
    recorded = {" ".join(pair): batches(recorded_loader(preprocessed, *pair), 0) for pair in RECORDED}
    sections = {"geometry": geometries(), "synthetic": synthetic, "recorded": recorded}
    parts = []
    for section, entries in sections.items():
        lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        parts.append(f"{json.dumps(section)}: {{\n  {lines}\n }}")
    target.write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

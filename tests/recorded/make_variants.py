"""What every variant trainer trains with, of whichever nnunetv2 the interpreter finds.

Recorded with upstream 2.8.1:
    OMP_NUM_THREADS=1 UPSTREAM/bin/python tests/recorded/make_variants.py tests/recorded/variants.json

Each class is made for each of `SITUATIONS` that it can train, on made-up data. Recorded are its numbers, network,
augmentation, loss, optimiser and learning rates, and the losses of two updates from fixed weights.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import random
import sys
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

ROOT = "nnunetv2.training.nnUNetTrainer"
EPOCHS = (0, 1, 2, 24, 49, 50, 51, 300, 999)
LARGEST = 20000  # voxels of a patch that is augmented or trained with
UPDATED = ("labels_2d", "ignore_2d", "regions_3d")
TINY_PRIMUS = {"embed_dim": 24, "eva_depth": 1, "eva_numheads": 2, "ch_per_level": (4, 4, 8, 8)}
CPU = torch.device("cpu")
LABELS = {"background": 0, "left": 1, "right": 2}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
# patch size and labels of a dataset
SITUATIONS: dict[str, tuple[list[int], dict[str, Any]]] = {
    "labels_2d": ([32, 32], {"labels": LABELS}),
    "ignore_2d": ([48, 16], {"labels": {**LABELS, "ignore": 3}}),
    "slices_3d": ([8, 32, 32], {"labels": LABELS}),
    "regions_3d": ([16, 16, 16], REGIONS),
}
NUMBERS = (
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "initial_lr",
    "weight_decay",
    "oversample_foreground_percent",
    "probabilistic_oversampling",
    "enable_deep_supervision",
    "disable_checkpointing",
    "save_every",
    "batch_size",
)


def is_small(patch_size: list[int]) -> bool:
    return int(np.prod(patch_size)) <= LARGEST


def plans(patch_size: list[int]) -> dict[str, Any]:
    """Plans of a U-Net of three stages with two channels, one of them masked."""
    axes = len(patch_size)
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[3] * axes] * 3,
        "strides": [[1] * axes, [2] * axes, [2] * axes],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "data",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch_size,
        "spacing": [1.0] * axes,
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [True, False],
        "batch_dice": axes == 2,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset777_Variants",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"tested": configuration},
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "continue_training": False,
    }


def dataset_json(labels: dict[str, Any]) -> dict[str, Any]:
    return {"channel_names": {"0": "a", "1": "b"}, "numTraining": 1, "file_ending": ".nii.gz", **labels}


class Silent:
    """Stands in for a trainer's logger."""

    def log(self, *args: Any) -> None:
        pass

    def update_config(self, *args: Any) -> None:
        pass

    def get_value(self, key: str, step: int | None) -> list[float]:
        return [5.0, 9.0] if "end" in key else [2.0, 7.0]


class FakeAdan(torch.optim.SGD):
    """Stands in for the optional package's optimiser."""

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)


@contextlib.contextmanager
def surroundings() -> Iterator[Path]:
    """Empty roots, a stand-in for adan-pytorch, and Primus networks of a size that a test can train."""
    from dynamic_network_architectures.architectures import primus

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        roots = {name: f"{folder}/{name}" for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        cases = Path(roots["nnUNet_preprocessed"], "Dataset777_Variants", "data")
        cases.mkdir(parents=True)
        (cases / "a.b2nd").touch()  # tells the format of the stored cases
        stack.enter_context(mock.patch.dict(os.environ, {**roots, "nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}))
        stack.enter_context(mock.patch.dict(sys.modules, {"adan_pytorch": types.SimpleNamespace(Adan=FakeAdan)}))
        for network in (primus.Primus, primus.PrimusV2, primus.PrimusV3):
            stack.enter_context(mock.patch.object(network, "__init__", tiny(network.__init__)))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield Path(folder)


PRIMUS_ARGUMENTS: list[dict[str, Any]] = []  # of the networks made last, outermost class first


def tiny(init: Any) -> Any:
    def shrunk(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(init).bind(self, *args, **kwargs)
        bound.apply_defaults()
        PRIMUS_ARGUMENTS.append({name: plain(value) for name, value in bound.arguments.items() if name != "self"})
        bound.arguments.update({name: value for name, value in TINY_PRIMUS.items() if name in bound.arguments})
        init(*bound.args, **bound.kwargs)

    return shrunk


def trainer_classes() -> dict[str, str]:
    """Maps the class names that `variants` and `primus` define to their modules."""
    found = {}
    for part in ("variants", "primus"):
        package = importlib.import_module(f"{ROOT}.{part}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.ispkg:
                module = importlib.import_module(info.name)
                classes = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == info.name]
                found |= {cls.__name__: info.name for cls in classes if hasattr(cls, "run_training")}
    return dict(sorted(found.items()))


def plain(value: Any) -> Any:
    """A value as JSON has it: objects by class and attributes, functions by what they return."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.10g}")
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, type) or inspect.isbuiltin(value):
        return value.__name__
    if inspect.isfunction(value) and not value.__module__.startswith("nnunetv2"):
        return value.__name__
    if inspect.isfunction(value):
        np.random.seed(3)
        arguments = ((32, 16, 8), 1)[: len(inspect.signature(value).parameters)]
        return {"draws": [plain(value(*arguments)) for _ in range(4)]}
    # A choice by timing between two ways to blur, which differ in rounding.
    attributes = {name: plain(item) for name, item in sorted(vars(value).items()) if "benchmark" not in name}
    return {"class": type(value).__name__, **attributes}


def seed(number: int = 7) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def draws(transforms: Any, size: list[int], num_segmentations: int) -> list[float]:
    """Mean and deviation of three augmented images, and the sums of their labels."""
    coordinates = np.indices(size).astype(np.float32)
    waves = np.sin(0.4 * coordinates[-1]) * np.cos(0.3 * coordinates[-2]) + 0.1 * coordinates[0]
    image = torch.from_numpy(np.stack([waves, waves[..., ::-1] ** 2]).astype(np.float32))
    labels = torch.from_numpy(((waves > 0.2).astype(np.int16) + (waves > 0.6))[None])
    labels[..., :3] = -1
    segmentation = torch.cat([labels, labels.clamp_min(0)])[:num_segmentations]
    numbers = []
    for number in range(3):
        seed(number)
        result = transforms(image=image.clone(), segmentation=segmentation.clone())
        target = result["segmentation"]
        target = target[0] if isinstance(target, list) else target
        moments = (result["image"].mean(), result["image"].std(), target.float().mean())
        numbers += [round(float(value), 5) for value in moments]
    return numbers


def augmentation(trainer: Any, patch_size: list[int], situation: str) -> dict[str, Any]:
    rotation, dummy_2d, cut_size, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    labels, is_cascaded = trainer.label_manager, situation == "slices_3d"
    transforms = trainer.get_training_transforms(
        patch_size,
        rotation,
        trainer._get_deep_supervision_scales() if trainer.enable_deep_supervision else None,
        axes,
        dummy_2d,
        use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
        is_cascaded=is_cascaded,
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label,
    )
    cut_size = [int(side) for side in cut_size]
    return {
        "geometry": plain([rotation, dummy_2d, cut_size, axes]),
        "prediction_mirrors": plain(trainer.inference_allowed_mirroring_axes),
        "transforms": plain(transforms)["transforms"],
        "draws": draws(transforms, cut_size, 1 + is_cascaded) if is_small(patch_size) else None,
    }


def batch(trainer: Any, patch_size: list[int]) -> dict[str, Any]:
    """A made-up batch of two samples."""
    generator = torch.Generator().manual_seed(1)
    labels = trainer.label_manager

    def target(size: list[int]) -> torch.Tensor:
        drawn = torch.randint(max(labels.all_labels) + 1 + labels.has_ignore_label, (2, 1, *size), generator=generator)
        return torch.cat([drawn >= 1, drawn >= 2], 1) if labels.has_regions else drawn.short()

    data = torch.randn((2, 2, *patch_size), generator=generator)
    scales = trainer._get_deep_supervision_scales() if trainer.enable_deep_supervision else [[1] * len(patch_size)]
    targets = [target([round(side * part) for side, part in zip(patch_size, scale)]) for scale in scales]  # noqa: B905
    return {"data": data, "target": targets if trainer.enable_deep_supervision else targets[0]}


def fixed_weights(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            values = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7) * 0.1 + 0.02
            parameter.copy_(values.float().reshape(parameter.shape))


def updates(trainer: Any, patch_size: list[int]) -> dict[str, Any]:
    """Losses of two updates, and the norm that gradients were clipped to."""
    fixed_weights(trainer.network)
    trainer.current_epoch = 0
    trainer.on_train_epoch_start()
    seed()
    with mock.patch("torch.nn.utils.clip_grad_norm_", wraps=torch.nn.utils.clip_grad_norm_) as clip:
        made_up = batch(trainer, patch_size)
        try:
            losses = [float(trainer.train_step(made_up)["loss"]) for _ in range(2)]
        except Exception as error:
            return {"fails": type(error).__name__}
    return {"losses": [round(loss, 5) for loss in losses], "clipped_to": plain(clip.call_args.args[1])}


def learning_rates(trainer: Any) -> dict[str, float]:
    rates = {}
    for epoch in EPOCHS:
        if epoch < trainer.num_epochs:
            trainer.current_epoch = epoch
            trainer.on_train_epoch_start()
            rates[str(epoch)] = float(f"{trainer.optimizer.param_groups[0]['lr']:.6g}")
    return rates


def loss_of(trainer: Any) -> dict[str, Any]:
    loss = trainer.loss
    weights = getattr(loss, "weight_factors", None)
    inner = loss if weights is None else loss.loss
    return {"class": type(inner).__name__, "weights": None if weights is None else [round(w, 6) for w in weights]}


def optimiser_of(trainer: Any) -> dict[str, Any]:
    (group,) = trainer.optimizer.param_groups
    kept = {key: plain(value) for key, value in group.items() if key not in ("params", "initial_lr", "lr")}
    return {"class": type(trainer.optimizer).__name__, "parameters": len(group["params"]), **kept}


def network_of(trainer: Any) -> dict[str, Any]:
    count = Counter(type(module).__name__ for module in trainer.network.modules())
    layers = {name: number for name, number in sorted(count.items()) if "Norm" in name or "Conv" in name}
    size = sum(parameter.numel() for parameter in trainer.network.parameters())
    arguments = PRIMUS_ARGUMENTS[0] if PRIMUS_ARGUMENTS else None
    return {"layers": layers, "num_parameters": size, "primus": arguments}


def benchmark_result(trainer: Any, folder: Path) -> dict[str, Any] | None:
    """The file that a benchmark leaves."""
    if not hasattr(trainer, "crashed_with_runtime_error"):
        return None
    trainer.output_folder = str(folder)
    with mock.patch("torch.cuda.get_device_name", return_value="none"):
        trainer.on_train_end()
    content = json.loads((folder / "benchmark_result.json").read_text())
    (folder / "benchmark_result.json").unlink()
    ((key, entry),) = content.items()
    parts = key.split("__")
    return {"keys": sorted(entry), "fastest_epoch": entry["fastest_epoch"], "parts": [len(parts), parts[-1]]}


def dummy_batch(trainer: Any) -> list[list[int]] | None:
    if not type(trainer).__name__.endswith("noDataLoading") or trainer.label_manager.has_regions:
        return None
    trainer.get_dataloaders()
    return [list(array.shape) for array in (trainer.dummy_batch["data"], *trainer.dummy_batch["target"])]


def describe(cls: type, situation: str, folder: Path) -> dict[str, Any] | str:
    """All that is recorded about one class in one situation, or that it refuses to train there."""
    patch_size, labels = SITUATIONS[situation]
    PRIMUS_ARGUMENTS.clear()
    try:
        with mock.patch("torch.cuda.is_available", return_value="Benchmark" in cls.__name__):
            trainer = cls(plans(list(patch_size)), "tested", 0, dataset_json(labels), CPU)
        trainer.logger = Silent()
        trainer.print_to_log_file = lambda *args, **kwargs: None
        trainer.initialize()
    except Exception:
        return "refused"
    patch_size = [int(side) for side in trainer.configuration_manager.patch_size]
    description = {
        "numbers": {name: plain(getattr(trainer, name)) for name in NUMBERS},
        "patch_size": patch_size,
        "network": network_of(trainer),
        "optimiser": optimiser_of(trainer),
        "loss": loss_of(trainer),
        "augmentation": augmentation(trainer, patch_size, situation),
        "dummy_batch": dummy_batch(trainer),
        "updates": updates(trainer, patch_size) if situation in UPDATED and is_small(patch_size) else None,
    }
    return {
        **description,
        "learning_rates": learning_rates(trainer),
        "benchmark_result": benchmark_result(trainer, folder),
    }


def load(name: str, module: str) -> type:
    return getattr(importlib.import_module(module), name)


def all_variants(names: dict[str, str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each class's name with its module and its description in each situation; by default of all classes."""
    with surroundings() as folder:
        for name, module in (names or trainer_classes()).items():
            cls = load(name, module)
            yield name, {"module": module, **{key: describe(cls, key, folder) for key in SITUATIONS}}


def packed(variants: dict[str, Any]) -> dict[str, Any]:
    """The same with each transform, and each of the larger parts of descriptions, written once."""
    table: list[Any] = []

    def number(part: Any) -> int:
        if part not in table:
            table.append(part)
        return table.index(part)

    for variant in variants.values():
        for situation, description in variant.items():
            if isinstance(description, dict):
                transforms = description["augmentation"]["transforms"]
                description["augmentation"]["transforms"] = [number(transform) for transform in transforms]
                variant[situation] = {key: number(part) for key, part in description.items()}
    return {"table": table, "variants": variants}


def unpacked(content: dict[str, Any]) -> dict[str, Any]:
    """What `packed` packed."""
    table = content["table"]

    def part(key: str, index: int) -> Any:
        value = table[index]
        return {**value, "transforms": [table[i] for i in value["transforms"]]} if key == "augmentation" else value

    return {
        name: {
            situation: {key: part(key, index) for key, index in entry.items()} if isinstance(entry, dict) else entry
            for situation, entry in variant.items()
        }
        for name, variant in content["variants"].items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    content = packed(dict(all_variants()))
    Path(sys.argv[1]).write_text(json.dumps(content, separators=(",", ":")) + "\n")
    sys.stdout.write(f"{len(content['variants'])} trainers\n")

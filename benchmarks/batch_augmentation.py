"""Compares what a batch costs the workers and the device with `-augmentation_device cpu` and `cuda`.

    python -m benchmarks.batch_augmentation [--device cpu] [--batches 20] [--tiny]

Batches are seeded, so that both settings draw the same ones. Cases are noise in memory, with labels in blocks of some
voxels. Prints one line per kind of batches: CPU milliseconds of a worker per batch with both settings; and with `cuda`,
what a batch costs the device: milliseconds with the copies to it, peak memory in GiB, megabytes that are copied.

`benchmarks.on_gpu` has the same rows as a section.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.step_times import medians
from nnunetv2.training.data_augmentation import default_pipeline
from nnunetv2.training.data_augmentation.patch_geometry import augmentation_geometry
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice
from nnunetv2.training.dataloading.drawing_loader import DrawingDataLoader
from nnunetv2.training.dataloading.random_streams import TRAINING_STREAM, SampleStreams

Row = dict[str, Any]
CLASSES = 4
GIB = 2**30


@dataclass(frozen=True)
class Kind:
    """A kind of batches.

    Attributes:
        name: unique, for tables.
        batch_size: patches of a batch.
        channels: of the image.
        patch_size: two or three sizes.
    """

    name: str
    batch_size: int
    channels: int
    patch_size: tuple[int, ...]


KINDS = (
    Kind("2-D", 12, 1, (512, 512)),
    Kind("2-D, RGB", 4, 3, (1024, 1024)),
    Kind("3-D", 2, 1, (128, 128, 128)),
    Kind("few slices", 2, 1, (20, 320, 256)),
)
TINY = (Kind("2-D", 2, 3, (32, 32)), Kind("3-D", 2, 1, (16, 16, 16)), Kind("few slices", 2, 1, (4, 32, 24)))


class _Cases:
    """Two cases in memory, a little larger than the crops."""

    identifiers = ("a", "b")

    def __init__(self, channels: int, shape: Sequence[int]) -> None:
        generator = np.random.default_rng(0)
        coarse = generator.integers(0, CLASSES, [-(-size // 8) for size in shape], dtype=np.int16)
        labels = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)[tuple(slice(size) for size in shape)]
        image = labels + generator.normal(size=(channels, *shape))
        places = {label: np.argwhere((labels == label)[None])[:1000] for label in range(1, CLASSES)}
        self._case = image.astype(np.float32), labels[None], None, {"class_locations": places}

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        return self._case


def make_loaders(kind: Kind) -> dict[str, nnUNetDataLoader]:
    """The loaders of both settings, which draw the same batches."""
    rotation, dummy_2d, cut_size, axes = augmentation_geometry(kind.patch_size)
    scales = [[1.0] * len(kind.patch_size), [0.5] * len(kind.patch_size)]
    shape = [1, *cut_size][-3:]
    cases = _Cases(kind.channels, [size + 8 if size > 1 else 2 for size in shape])
    labels = SimpleNamespace(all_labels=list(range(CLASSES)), has_ignore_label=False)
    loaders = {}
    for setting, loader in (("cpu", nnUNetDataLoader), ("cuda", DrawingDataLoader)):
        transforms = default_pipeline.training_transforms(kind.patch_size, rotation, scales, axes, dummy_2d)
        sizes = (kind.batch_size, cut_size, kind.patch_size)
        loaders[setting] = loader(cases, *sizes, labels, 0.33, transforms=transforms)
        loaders[setting].streams = SampleStreams(0, TRAINING_STREAM, 0, 0)
    return loaders


def measure(kind: Kind, device: torch.device, num_batches: int) -> Row:
    """Measures one kind of batches: means over batches, as they differ in what is drawn."""
    loaders = make_loaders(kind)
    times: dict[str, list[float]] = {setting: [] for setting in loaders}
    for _ in range(num_batches + 1):
        for setting, loader in loaders.items():
            started = time.process_time()
            next(loader)
            times[setting].append(1000 * (time.process_time() - started))
    loaders["cuda"].next_batch = 1
    drawn = [_pinned(next(loaders["cuda"]), device) for _ in range(num_batches)]
    size = f"{kind.batch_size} x {'x'.join(map(str, kind.patch_size))}"
    row: Row = {"batches": kind.name, "size": size, "channels": kind.channels}
    row |= {f"worker, {setting}": round(statistics.mean(spent[1:]), 1) for setting, spent in times.items()}
    batches = AugmentedOnDevice(_Repeated(loaders["cuda"], drawn), device)
    if device.type == "cuda":
        next(batches)
        torch.cuda.synchronize(device)
        resting = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    def all_batches() -> None:
        for _ in range(num_batches):
            next(batches)

    row["device"] = round(medians({"all": all_batches}, device, 3)["all"]["ms"] / num_batches, 2)
    row["MB copied"] = round(statistics.mean(_num_bytes(batch["drawn"]) for batch in drawn) / 1e6, 2)
    if device.type == "cuda":
        row["GiB"] = round((torch.cuda.max_memory_allocated(device) - resting) / GIB, 2)
    return row


class _Repeated:
    """Stands for the workers: gives batches that have been drawn, again and again."""

    def __init__(self, loader: DrawingDataLoader, batches: list[dict[str, Any]]) -> None:
        self.generator, self._batches, self._number = loader, batches, 0

    def __next__(self) -> dict[str, Any]:
        self._number += 1
        return self._batches[self._number % len(self._batches)]


def _pinned(content: Any, device: torch.device) -> Any:
    """As the workers' batches arrive: in page-locked memory, on the CPU at least in memory of their own."""
    if isinstance(content, torch.Tensor):
        return content.pin_memory() if device.type == "cuda" else content.clone()
    if isinstance(content, dict):
        return {name: _pinned(item, device) for name, item in content.items()}
    if isinstance(content, list):
        return [_pinned(item, device) for item in content]
    return content


def _num_bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.nbytes
    items = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return sum(map(_num_bytes, items))


def rows(device: torch.device, num_batches: int, *, is_tiny: bool) -> list[Row]:
    """Measures all kinds of batches, on one thread of the CPU as in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [measure(kind, device, num_batches) for kind in (TINY if is_tiny else KINDS)]
    finally:
        torch.set_num_threads(threads)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="measure miniatures")
    arguments = parser.parse_args(argv)
    for row in rows(arguments.device, arguments.batches, is_tiny=arguments.tiny):
        print(" | ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()

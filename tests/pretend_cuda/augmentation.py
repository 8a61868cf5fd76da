"""Batches augmented on the pretended device, and what they made the host wait for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from nnunetv2.training.dataloading import augmenters
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice
from nnunetv2.training.dataloading.drawing_loader import DrawingDataLoader
from tests.pretend_cuda.device import CUDA, CudaTensor, pretended_cuda
from tests.training.dataloading import test_device_batches as on_cpu

NUM_BATCHES = 4


@dataclass(frozen=True)
class Augmented:
    """What is known of some batches.

    Attributes:
        waits: of all batches.
        staged: of all batches, see `HostLog`.
        launches: of each batch.
        bytes_to_host: of all batches.
        on_device: whether image and target were on the device, of each batch.
        largest_difference: of the images from those of the pipeline on the CPU.
        labels_differ: voxels of the targets that do.
    """

    waits: list[str]
    staged: list[str]
    launches: list[int]
    bytes_to_host: int
    on_device: list[tuple[bool, bool]]
    largest_difference: float
    labels_differ: int


def augment(name: str, *, keeps_labels: bool = False) -> Augmented:
    """Augments batches of one of the trainings of `test_device_batches`."""
    on_cpu.seed_generators(0)
    expected = list(islice(on_cpu.make_loader(name, nnUNetDataLoader), NUM_BATCHES))
    on_cpu.seed_generators(0)
    loader = on_cpu.make_loader(name, DrawingDataLoader, keeps_labels=keeps_labels)
    crops = list(islice(loader, NUM_BATCHES))  # drawn before, so that only what happens on the device is counted
    waits, staged, launches, on_device, num_bytes = [], [], [], [], 0
    largest, differ = 0.0, 0
    with pretended_cuda() as log:
        batches = AugmentedOnDevice(_Prepared(loader, [augmenters._pinned(batch) for batch in crops]), CUDA)
        for theirs in expected:
            log.reset()
            ours = next(batches)
            waits += log.waits
            staged += log.staged
            launches.append(log.launches)
            num_bytes += log.bytes_to_host
            targets = on_cpu.targets_of(ours)
            on_device.append((isinstance(ours["data"], CudaTensor), isinstance(targets[0], CudaTensor)))
            largest = max(largest, (_values(ours["data"]) - theirs["data"]).abs().max().item())
            pairs = zip(targets, on_cpu.targets_of(theirs), strict=True)
            differ += sum(int((_values(labels) != known).sum()) for labels, known in pairs)
    return Augmented(waits, staged, launches, num_bytes, on_device, largest, differ)


class _Prepared:
    """Stands for the iterator of a loader whose batches have been made."""

    def __init__(self, loader: DrawingDataLoader, batches: list[dict[str, Any]]) -> None:
        self.generator, self._batches = loader, iter(batches)

    def __next__(self) -> dict[str, Any]:
        return next(self._batches)


def _values(tensor: Any) -> Any:
    return tensor.on_cpu if isinstance(tensor, CudaTensor) else tensor

"""Iterators over training and validation batches, and the transfer of a batch to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dinov3.utils import host_copies
from nnunetv2.training.dataloading.augmenters import Restarts, make_augmenter
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice
from nnunetv2.training.dataloading.random_streams import SampleStreams
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.label_handling.label_handling import LabelManager

if TYPE_CHECKING:
    from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

    from nnunetv2.preprocessing.stored_cases import nnUNetBaseDataset
    from nnunetv2.training.dataloading.drawing_loader import DrawingDataLoader

Target = torch.Tensor | list[torch.Tensor]


def unpack(dataset_class: type[nnUNetBaseDataset], folder: str) -> None:
    """Converts stored cases to the form that allows the fastest reading of patches, if the format has one."""
    num_processes = max(1, get_allowed_n_proc_DA() // 2)
    dataset_class.unpack_dataset(folder, overwrite_existing=False, num_processes=num_processes, verify=True)


def label_arguments(labels: LabelManager, is_cascaded: bool) -> dict[str, Any]:
    """Arguments that describe the labels of a dataset to the transforms."""
    return {
        "is_cascaded": is_cascaded,
        "foreground_labels": labels.foreground_labels,
        "regions": labels.foreground_regions if labels.has_regions else None,
        "ignore_label": labels.ignore_label,
    }


class Drawing(NamedTuple):
    """Sampling parameters shared by training and validation batches; see `nnUNetDataLoader`."""

    batch_size: int
    patch_size: Sequence[int]
    labels: LabelManager
    oversample_foreground: float
    probabilistic_oversampling: bool
    context_slices: int = 1


class DeviceAugmentation(NamedTuple):
    """Where training batches are augmented, if not in the workers; see `device_batches`."""

    device: torch.device
    labels_on_host: bool
    """the loss reads the targets on the CPU, so the workers make them"""

    def loader(self, *args: Any, **settings: Any) -> DrawingDataLoader:
        """Makes the loader of the training batches; arguments as for `nnUNetDataLoader`."""
        from nnunetv2.training.dataloading.drawing_loader import DrawingDataLoader  # imports every transform

        return DrawingDataLoader(*args, **settings, keeps_labels=self.labels_on_host)


class Transforms(NamedTuple):
    """Transforms of training and validation, and the size of the crop that they are applied to."""

    training: BasicTransform
    validation: BasicTransform
    cut_size: Sequence[int]
    """voxels per axis of the training crop, before the transforms"""


def start(
    cases: tuple[nnUNetBaseDataset, nnUNetBaseDataset],
    cut_sizes: tuple[Sequence[int], Sequence[int]],
    transforms: tuple[BasicTransform, BasicTransform],
    drawing: Drawing,
    *,
    pin_memory: bool,
    streams: tuple[SampleStreams | None, SampleStreams | None] = (None, None),
    keep_order: bool = True,
    on_device: DeviceAugmentation | None = None,
) -> tuple[Any, Any]:
    """Starts iterators over training and validation batches; validation gets half the background processes.

    Draws and discards the first batch of each, so that background processes start here: an error then stops the
    training before it writes anything. With streams, the discarded batch is the one before the first that is needed.

    Args:
        cases: training and validation cases; the other pairs are in the same order.
        cut_sizes: voxels per axis of the crop before the transforms.
        streams: random streams of the samples; without them, samples use the global generators.
        keep_order: wait for late batches of streams, see `make_augmenter`.
        on_device: augment training batches on a device; None: in the workers.

    Raises:
        UsageError: the device cannot apply the training transforms.
    """
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader  # imports what only training needs

    makers = (nnUNetDataLoader if on_device is None else on_device.loader, nnUNetDataLoader)
    num_processes = get_allowed_n_proc_DA()
    workers = (num_processes, max(1, num_processes // 2) if num_processes else 0)
    waiting = (max(6, num_processes // 2), max(3, num_processes // 4))
    augmenters, restarts = [], Restarts()
    for make_loader, case_set, cut_size, transform, stream, count, cached in zip(
        makers, cases, cut_sizes, transforms, streams, workers, waiting, strict=True
    ):
        loader = make_loader(
            case_set,
            drawing.batch_size,
            cut_size,
            drawing.patch_size,
            drawing.labels,
            oversample_foreground_percent=drawing.oversample_foreground,
            probabilistic_oversampling=drawing.probabilistic_oversampling,
            transforms=transform,
            context_slices=drawing.context_slices,
        )
        loader.streams = stream
        options = {"pin_memory": pin_memory, "restarts": restarts, "keep_order": keep_order}
        augmenters.append(make_augmenter(loader, count, cached, **options))
    if on_device is not None:
        augmenters[0] = AugmentedOnDevice(augmenters[0], on_device.device)
    try:
        for augmenter in augmenters:
            next(augmenter)
    except BaseException:
        stop_augmenters(*augmenters)  # the caller does not get the other one
        raise
    return augmenters[0], augmenters[1]


@contextmanager
def stopped_afterwards(augmenters: Callable[[], Sequence[object]]) -> Iterator[None]:
    """Stops background processes at the end of the block, also after an exception.

    Args:
        augmenters: returns the batch iterators at the end of the block, which may have created them.
    """
    try:
        yield
    finally:
        stop_augmenters(*augmenters())


def stop_augmenters(*augmenters: object) -> None:
    """Stops background processes; skips iterators without any, and None."""
    for augmenter in augmenters:
        if hasattr(augmenter, "_finish"):
            augmenter._finish()


def to_device(batch: dict[str, Any], device: torch.device) -> tuple[torch.Tensor, Target]:
    """Moves image and target (one per supervised resolution) to the device; targets can be read with `on_host`."""
    image, target = batch["data"].to(device, non_blocking=True), batch["target"]
    if isinstance(target, list):
        return image, [host_copies.to_device(resolution, device) for resolution in target]
    return image, host_copies.to_device(target, device)

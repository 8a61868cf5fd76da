"""Draws training batches: random cases, patches with foreground oversampling, augmentation per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.data_loader import DataLoader

from nnunetv2.errors import DataError
from nnunetv2.training.data_augmentation.custom_transforms.spatial import draw_crop
from nnunetv2.training.dataloading.patch_position import (
    ClassLocations,
    Label,
    annotated_class,
    choose_class,
    position_around,
    position_bounds,
    random_position,
    random_voxel,
)
from nnunetv2.training.dataloading.random_streams import SampleStreams, sample_generators
from nnunetv2.utilities.context_slices import context_of

if TYPE_CHECKING:
    from nnunetv2.preprocessing.stored_cases import nnUNetBaseDataset
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

OUTSIDE_LABEL = -1  # label of patch voxels outside the case
_NUM_SPATIAL_AXES = 3


class nnUNetDataLoader(DataLoader):
    """Endless iterator over batches.

    A batch is a dict of `data`, float32 (B, C, *spatial); `target`, (B, 1 or R, *spatial) or a list of such, one per
    supervised resolution; and `keys`, the identifiers of the drawn cases.

    Args:
        data: the cases to draw from.
        batch_size: samples per batch.
        patch_size: size of the crop that is passed to `transforms`, 2 or 3 axes in voxels.
        final_patch_size: patch size of the network; where smaller, crops may extend beyond the case by the difference,
            so that the final patch can reach its border.
        label_manager: labels of the dataset, including the ignore label.
        oversample_foreground_percent: share (0 to 1) of the samples that must contain a foreground class.
        sampling_probabilities: probability of each case, summing to one; `None`: uniform.
        pad_sides: additional voxels per axis by which crops may extend beyond the case.
        probabilistic_oversampling: force foreground by a random draw per sample; false: force it in the last samples of
            each batch.
        context_slices: of 2-D patches: so many slices, the drawn one in the middle, become channels of each image; the
            slices of a channel lie one after the other. Labels are those of the drawn one.
        transforms: called with `image=` and `segmentation=` tensors without batch axis, returns a dict with both.

    Attributes:
        streams: random streams of the samples; None: samples are drawn sequentially from the global generators, as
            upstream does.
        next_batch: number of the next batch, which selects its random numbers in the streams; background workers set it
            for each batch.
        note_case: called with the name of each case before it is read; None: nobody wants to know.
    """

    streams: SampleStreams | None = None
    next_batch: int = 0
    note_case: Callable[[str], None] | None = None

    def __init__(
        self,
        data: nnUNetBaseDataset,
        batch_size: int,
        patch_size: Sequence[int] | np.ndarray,
        final_patch_size: Sequence[int] | np.ndarray,
        label_manager: LabelManager,
        oversample_foreground_percent: float = 0.0,
        sampling_probabilities: Sequence[float] | np.ndarray | None = None,
        pad_sides: Sequence[int] | None = None,
        probabilistic_oversampling: bool = False,
        transforms: Callable[..., dict[str, Any]] | None = None,
        *,
        context_slices: int = 1,
    ) -> None:
        if len(data.identifiers) == 0:
            raise DataError("there is no case to draw batches from: check the splits and the preprocessed folder")
        super().__init__(data, batch_size, infinite=True, sampling_probabilities=sampling_probabilities)
        self.indices = data.identifiers
        self.oversample_foreground_percent = oversample_foreground_percent
        self.pad_sides = pad_sides
        self.transforms = transforms
        self.context_slices = context_slices

        self.patch_size_was_2d = len(patch_size) == _NUM_SPATIAL_AXES - 1
        self.patch_size = self._as_3d(patch_size, 1)
        self.final_patch_size = self._as_3d(final_patch_size, 1)
        self.need_to_pad = np.subtract(self.patch_size, self.final_patch_size)
        if pad_sides is not None:
            self.need_to_pad = self.need_to_pad + self._as_3d(pad_sides, 0)

        # With an ignore label, preprocessing stores the locations of all annotated voxels under this key.
        self.annotated_classes_key = (-1, *label_manager.all_labels)
        self.has_ignore = label_manager.has_ignore_label
        self.get_do_oversample = (
            self._probabilistic_oversampling if probabilistic_oversampling else self._oversample_last_XX_percent
        )

    def _as_3d(self, per_axis: Sequence[int], first_axis: int) -> tuple[int, ...]:
        """Adds a first axis to 2-D sizes: stored cases have three axes, and a 2-D patch is one slice of the first."""
        leading = (first_axis,) if self.patch_size_was_2d else ()
        return (*leading, *(int(value) for value in per_axis))

    def _oversample_last_XX_percent(self, sample_idx: int) -> bool:
        """True if a sample of the batch must contain foreground: those from index round(n * (1 - share)) on."""
        num_unconstrained = round(self.batch_size * (1 - self.oversample_foreground_percent))
        return sample_idx >= num_unconstrained

    def _probabilistic_oversampling(self, sample_idx: int) -> bool:
        """True if a sample must contain foreground, by one draw from numpy's global generator."""
        return np.random.uniform() < self.oversample_foreground_percent

    def get_bbox(
        self,
        data_shape: Sequence[int],
        force_fg: bool,
        class_locations: ClassLocations | None,
        overwrite_class: Label | None = None,
        verbose: bool = False,
    ) -> tuple[list[int], list[int]]:
        """Draws the position of a patch in a case.

        Args:
            data_shape: spatial shape of the case, three axes.
            force_fg: centre the patch on a foreground voxel if the case has any.
            class_locations: (N, 4) voxel locations per class or region, as stored by preprocessing.
            overwrite_class: class to centre on instead of a random one, if the case has it.
            verbose: ignored; part of upstream's signature.

        Returns:
            First voxel and voxel after the last, per axis; both may lie outside the case.

        Raises:
            DataError: `class_locations` lacks what the choice needs.
        """
        bounds = position_bounds(data_shape, self.patch_size, self.need_to_pad)
        centre_class = None
        if force_fg or self.has_ignore:
            if class_locations is None:
                raise DataError("foreground cannot be sampled: a case has no class_locations, preprocess it again")
            if force_fg:
                centre_class = choose_class(class_locations, self.annotated_classes_key, overwrite_class)
            else:
                centre_class = annotated_class(class_locations, self.annotated_classes_key)

        if centre_class is None:
            first = random_position(bounds)
        else:
            first = position_around(random_voxel(class_locations[centre_class]), bounds, self.patch_size)
        return first, [start + size for start, size in zip(first, self.patch_size, strict=True)]

    def generate_train_batch(self) -> dict[str, Any]:
        """Draws one batch, see the class."""
        with torch.no_grad(), _one_torch_thread():
            keys, samples = self._draw_samples() if self.streams is None else self._samples_of_streams(self.streams)
        return {**self.collate(samples), "keys": keys}

    def transform_sample(self, image: torch.Tensor, segmentation: torch.Tensor, drawn: dict[str, Any]) -> Any:
        """Transforms one sample; `collate` receives the results of a batch.

        Args:
            image: (C, *spatial), float32.
            segmentation: (1 or more, *spatial), int16.
            drawn: what the transforms have drawn before the sample was read, see `draw_crop`.
        """
        if self.transforms is None:
            return image, segmentation
        transformed = self.transforms(image=image, segmentation=segmentation, **drawn)
        return transformed["image"], transformed["segmentation"]

    def collate(self, samples: Sequence[Any]) -> dict[str, Any]:
        """Joins transformed samples to a batch, without its `keys`."""
        images, segmentations = zip(*samples, strict=True)
        return {"data": torch.stack(images), "target": collated_targets(segmentations)}

    def _draw_samples(self) -> tuple[np.ndarray, list[Any]]:
        keys = self.get_indices()
        return keys, [self._draw_sample(key, self.get_do_oversample(index)) for index, key in enumerate(keys)]

    def _samples_of_streams(self, streams: SampleStreams) -> tuple[np.ndarray, list[Any]]:
        batch = self.next_batch
        self.next_batch += 1
        keys, samples = [], []
        for index in range(self.batch_size):
            with sample_generators(streams, batch, index):
                keys.append(self._draw_key())
                samples.append(self._draw_sample(keys[-1], self.get_do_oversample(index)))
        return np.array(keys), samples

    def _draw_key(self) -> str:
        """Draws one case; drawing several at once would make later draws depend on the batch size."""
        batch_size, self.batch_size = self.batch_size, 1
        try:
            return self.get_indices()[0]
        finally:
            self.batch_size = batch_size

    def _draw_sample(self, key: str, force_fg: bool) -> Any:
        """Draws one patch of a case; returns what `transform_sample` makes of it."""
        if self.note_case is not None:
            self.note_case(key)
        data, seg, seg_prev, properties = self._data.load_case(key)
        first, last = self.get_bbox(data.shape[1:], force_fg, properties["class_locations"])
        whole = [list(ends) for ends in zip(first, last, strict=True)]
        part, drawn = self._part_to_read(whole, data.shape[1:])

        image = self._read_image(data, part, whole)
        segmentation = _crop_labels(seg, part)
        if seg_prev is not None:
            segmentation = torch.cat((segmentation, _crop_labels(seg_prev, part)[None]))
        if self.patch_size_was_2d:
            image, segmentation = image.flatten(0, 1), segmentation[:, 0]
        return self.transform_sample(image, segmentation, drawn)

    def _read_image(self, data: Any, part: list[list[int]], whole: list[list[int]]) -> torch.Tensor:
        """Reads a part of a sample (C, *spatial), and in 2-D also of the slices around it."""
        if self.context_slices == 1:
            return _crop_image(data, part, whole)
        numbers = context_of(part[0][0], self.context_slices, data.shape[1])
        slab = [[numbers[0], numbers[-1] + 1]]
        image = _crop_image(data, slab + part[1:], slab + whole[1:])
        return image[:, [number - numbers[0] for number in numbers]]

    def _part_to_read(
        self, whole: list[list[int]], data_shape: Sequence[int]
    ) -> tuple[list[list[int]], dict[str, Any]]:
        """First and last voxel per axis that the transforms need of a sample, and what they have drawn to know it."""
        leading, spatial = (whole[:1], whole[1:]) if self.patch_size_was_2d else ([], whole)
        crop = draw_crop(self.transforms, [stop - start for start, stop in spatial])
        if crop is None:
            return whole, {}
        part = [[start + c.start, start + c.stop] for (start, _), c in zip(spatial, crop.part, strict=True)]
        part = leading + part
        # Where a part has no voxel of the case, it would be filled with 0 instead of `OUTSIDE_LABEL`.
        if all(start < size and stop > 0 for (start, stop), size in zip(part, data_shape, strict=True)):
            return part, crop.for_part
        return whole, crop.for_whole


def collated_targets(segmentations: Sequence[Any]) -> torch.Tensor | list[torch.Tensor]:
    """Joins the targets of samples, each (R, *spatial) or a list of such, one per supervised resolution."""
    if isinstance(segmentations[0], list):
        return [torch.stack(resolution) for resolution in zip(*segmentations, strict=True)]
    return torch.stack(segmentations)


def _crop_image(image: Any, part: list[list[int]], whole: list[list[int]]) -> torch.Tensor:
    """Reads a part of a sample, float32; in memory it lies as if the whole sample had been read.

    The order in which torch adds numbers, and with it the last digits of a mean, depends on that.
    """
    values = torch.from_numpy(crop_and_pad_nd(image, part, 0)).float()
    if part == whole:
        return values
    inside = [slice(start - first, stop - first) for (start, stop), (first, _) in zip(part, whole, strict=True)]
    sample = torch.empty((len(values), *(last - first for first, last in whole)))
    return sample[(slice(None), *inside)].copy_(values)


def _crop_labels(labels: Any, patch: list[list[int]]) -> torch.Tensor:
    cropped = crop_and_pad_nd(labels, patch, OUTSIDE_LABEL, cast_cropped_to=np.int16)
    return torch.from_numpy(cropped).to(torch.int16)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Limits torch to one thread: many processes make batches of small tensors, so more threads would only compete.

    This takes microseconds, whereas threadpoolctl scans all loaded libraries on each call.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)

"""The previous stage's segmentation as image channels, and ways to corrupt it, for batchgenerators pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from acvl_utils.morphology.morphology_helper import label_with_component_sizes
from batchgenerators.transforms.abstract_transforms import AbstractTransform
from scipy import ndimage
from skimage.morphology import ball

BinaryOperation = Callable[[np.ndarray, np.ndarray], np.ndarray]


def binary_dilation(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Dilation of a bool array."""
    return ndimage.binary_dilation(image, footprint)


def binary_erosion(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Erosion of a bool array; voxels outside the array count as set."""
    return ndimage.binary_erosion(image, footprint, border_value=1)


def binary_closing(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Dilation, then erosion: fills gaps."""
    return binary_erosion(binary_dilation(image, footprint), footprint)


def binary_opening(image: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Erosion, then dilation: removes specks."""
    return binary_dilation(binary_erosion(image, footprint), footprint)


class MoveSegAsOneHotToData(AbstractTransform):
    """Appends one segmentation channel, one-hot encoded, to the image.

    Args:
        index_in_origin: channel of the segmentation.
        all_labels: labels that get an image channel each.
        key_origin: key of the segmentation (B, C, *spatial).
        key_target: key of the image (B, C, *spatial).
        remove_from_origin: drop the channel from the segmentation.
    """

    def __init__(
        self,
        index_in_origin: int,
        all_labels: Sequence[int],
        key_origin: str = "seg",
        key_target: str = "data",
        remove_from_origin: bool = True,
    ) -> None:
        self.index_in_origin = index_in_origin
        self.all_labels = all_labels
        self.key_origin = key_origin
        self.key_target = key_target
        self.remove_from_origin = remove_from_origin

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        segmentation, image = data_dict[self.key_origin], data_dict[self.key_target]
        labels = segmentation[:, self.index_in_origin]
        one_hot = np.stack([labels == label for label in self.all_labels], axis=1).astype(image.dtype)
        data_dict[self.key_target] = np.concatenate((image, one_hot), axis=1)
        if self.remove_from_origin:
            data_dict[self.key_origin] = np.delete(segmentation, self.index_in_origin, axis=1)
        return data_dict


class ApplyRandomBinaryOperatorTransform(AbstractTransform):
    """Dilates, erodes, closes or opens one-hot channels by a random ball; added voxels leave the other channels.

    Args:
        channel_idx: channel or channels of the array.
        p_per_sample: probability that a sample is changed at all.
        any_of_these: operations to choose from, called with a bool array and a footprint.
        key: key of the array (B, C, X, Y, Z), changed in place.
        strel_size: range of the ball's radius in voxels.
        p_per_label: probability per channel of a changed sample.
    """

    def __init__(
        self,
        channel_idx: int | Sequence[int],
        p_per_sample: float = 0.3,
        any_of_these: Sequence[BinaryOperation] = (binary_dilation, binary_erosion, binary_closing, binary_opening),
        key: str = "data",
        strel_size: tuple[float, float] = (1, 10),
        p_per_label: float = 1,
    ) -> None:
        self.channel_idx = _as_list(channel_idx)
        self.p_per_sample = p_per_sample
        self.any_of_these = any_of_these
        self.key = key
        self.strel_size = strel_size
        self.p_per_label = p_per_label

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        for sample in data_dict[self.key]:
            if np.random.uniform() >= self.p_per_sample:
                continue
            # Channels take voxels from each other, so the order is shuffled to favour none.
            np.random.shuffle(self.channel_idx)
            for channel in self.channel_idx:
                if np.random.uniform() < self.p_per_label:
                    operation = np.random.choice(self.any_of_these)
                    self._change(sample, channel, operation, ball(np.random.uniform(*self.strel_size)))
        return data_dict

    def _change(self, sample: np.ndarray, channel: int, operation: BinaryOperation, footprint: np.ndarray) -> None:
        before = sample[channel].astype(bool)
        if not before.any():
            return
        after = operation(before, footprint)
        sample[channel] = after
        for other in self.channel_idx:
            if other != channel:
                sample[other][after & ~before] = 0


class RemoveRandomConnectedComponentFromOneHotEncodingTransform(AbstractTransform):
    """Removes one connected component of one-hot channels, or moves it to another channel.

    Args:
        channel_idx: channel or channels of the array.
        key: key of the array (B, C, *spatial), changed in place.
        p_per_sample: probability that a sample is changed at all.
        fill_with_other_class_p: probability that the component moves to another of the channels.
        dont_do_if_covers_more_than_x_percent: components that cover at least this share (0 to 1) of the voxels are
            kept.
        p_per_label: probability per channel of a changed sample.
    """

    def __init__(
        self,
        channel_idx: int | Sequence[int],
        key: str = "data",
        p_per_sample: float = 0.2,
        fill_with_other_class_p: float = 0.25,
        dont_do_if_covers_more_than_x_percent: float = 0.25,
        p_per_label: float = 1,
    ) -> None:
        self.channel_idx = _as_list(channel_idx)
        self.key = key
        self.p_per_sample = p_per_sample
        self.fill_with_other_class_p = fill_with_other_class_p
        self.dont_do_if_covers_more_than_x_percent = dont_do_if_covers_more_than_x_percent
        self.p_per_label = p_per_label

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        for sample in data_dict[self.key]:
            if np.random.uniform() < self.p_per_sample:
                for channel in self.channel_idx:
                    if np.random.uniform() < self.p_per_label:
                        self._remove_one(sample, channel)
        return data_dict

    def _remove_one(self, sample: np.ndarray, channel: int) -> None:
        components, sizes = label_with_component_sizes(sample[channel].astype(bool))
        limit = components.size * self.dont_do_if_covers_more_than_x_percent
        removable = [number for number, size in sizes.items() if size < limit]
        if not removable:
            return
        chosen = components == np.random.choice(removable)
        sample[channel][chosen] = 0
        if np.random.uniform() < self.fill_with_other_class_p:
            others = [other for other in self.channel_idx if other != channel]
            if others:
                sample[np.random.choice(others)][chosen] = 1


def _as_list(channels: int | Sequence[int]) -> list[int]:
    return list(channels) if isinstance(channels, (list, tuple)) else [channels]

"""How many images go through a network at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch

from nnunetv2.utilities.device_memory import call_and_measure, free_bytes, reports_memory
from nnunetv2.utilities.helpers import empty_cache
from nnunetv2.utilities.out_of_memory import is_out_of_memory

logger = logging.getLogger(__name__)

Network = Callable[[torch.Tensor], torch.Tensor]

# On the CPU torch uses a generic 3D convolution for a single small image and oneDNN for two, which is several times
# faster (measured: 4.5 times for 16 x 64 x 64 voxels, no gain from 32 x 64 x 64 on, little in 2D).
CPU_IMAGES_PER_FORWARD = 2
CPU_MAX_VOXELS_PER_FORWARD = 2**18

# A batch of this size keeps any GPU busy, and none of its tensors exceeds the 2**31 values that many kernels can index.
MAX_BYTES_PER_FORWARD = 2**32
MAX_IMAGES_PER_FORWARD = 64
_LARGEST_SHARE_OF_FREE_MEMORY = 0.5


def images_per_forward_on_cpu(image_size: Sequence[int]) -> int:
    is_small = CPU_IMAGES_PER_FORWARD * math.prod(image_size) < CPU_MAX_VOXELS_PER_FORWARD
    return CPU_IMAGES_PER_FORWARD if len(image_size) == 3 and is_small else 1


def largest_power_of_two(number: int) -> int:
    """The largest power of two that is at most `number`, which is at least 1."""
    return 1 << (number.bit_length() - 1)


class ForwardBatches:
    """Sizes of batches, always powers of two, so that a device sees few different shapes.

    A CUDA device gets as many images at a time as its memory allows. The first forward pass, of a single image, shows
    how much memory a voxel takes. A size that turns out to be too large is halved; both are remembered.

    Args:
        device: that of the network.
        may_grow: False for networks that are compiled anew for other sizes: single images on CUDA.
    """

    def __init__(self, device: torch.device, *, may_grow: bool = True) -> None:
        self._device = device
        self._may_grow = may_grow
        self._is_short_of_memory = False
        self._bytes_per_voxel: float | None = None
        self._sizes: dict[tuple[int, ...], int] = {}

    def size(self, image_size: Sequence[int], device: torch.device) -> int:
        """Largest number of images in a forward pass.

        Args:
            image_size: voxels per axis.
            device: that of the images; other than the network's where that has no memory for them.
        """
        if device.type == "cpu" and not self._is_measured(device):
            return images_per_forward_on_cpu(image_size)
        if not self._is_measured(device) or self._bytes_per_voxel is None:
            return 1
        image_size = tuple(image_size)
        if image_size not in self._sizes:
            available = min(_LARGEST_SHARE_OF_FREE_MEMORY * free_bytes(device), MAX_BYTES_PER_FORWARD)
            fitting = int(available / max(1, self._bytes_per_voxel * math.prod(image_size)))
            self._sizes[image_size] = largest_power_of_two(min(max(fitting, 1), MAX_IMAGES_PER_FORWARD))
        return self._sizes[image_size]

    def num_tiles(self, tile_size: Sequence[int], num_copies: int, device: torch.device) -> int:
        """Number of tiles to predict together if `num_copies` mirrored copies are made of each."""
        size = self.size(tile_size, device)
        return max(1, size // num_copies) if self._is_measured(device) else size

    def use_single_images(self) -> None:
        """Save memory until `start_case`."""
        self._is_short_of_memory = True

    def start_case(self) -> None:
        """What the case before needed says nothing about this one: its logits may have been larger."""
        self._is_short_of_memory = False

    def _is_measured(self, device: torch.device) -> bool:
        may_grow = self._may_grow and not self._is_short_of_memory
        return may_grow and device.type == self._device.type and reports_memory(device)

    def forward(self, network: Network, images: torch.Tensor) -> torch.Tensor:
        """Compute `network(images)`, in as many passes as memory requires.

        Args:
            network: maps (B, C, *spatial) to (B, K, *spatial).
            images: (B, C, *spatial).
        """
        if not self._is_measured(images.device):
            return network(images)
        predictions = []
        num_done = 0
        while num_done < len(images):
            allowed = self.size(images.shape[2:], images.device)
            group = images[num_done : num_done + largest_power_of_two(min(allowed, len(images) - num_done))]
            prediction = self._try(network, group)
            if prediction is not None:
                predictions.append(prediction)
                num_done += len(group)
        return predictions[0] if len(predictions) == 1 else torch.cat(predictions)

    def _try(self, network: Network, images: torch.Tensor) -> torch.Tensor | None:
        """Compute `network(images)`, or halve the size of batches and return None if memory does not suffice."""
        image_size = tuple(images.shape[2:])
        try:
            if self._bytes_per_voxel is not None:
                return network(images)
            prediction, num_bytes = call_and_measure(lambda: network(images), images.device)
            self._bytes_per_voxel = num_bytes / (len(images) * math.prod(image_size))
            return prediction
        except RuntimeError as err:
            if len(images) == 1 or not is_out_of_memory(err):
                raise
        # After the handler, whose exception keeps the tensors of the failed pass alive.
        self._sizes[image_size] = len(images) // 2
        empty_cache(images.device)
        logger.info("Memory does not suffice for %d images at a time; going on with %d", len(images), len(images) // 2)
        return None

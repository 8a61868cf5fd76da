"""Sampling of points at which masks are compared, instead of all pixels.

Coordinates are (x, y) in units of the image, which spans [0, 1], independent of the resolution. In a volume of several
slices, points lie in slices: a third coordinate is the middle of one, so that no value mixes two slices, which may be
millimetres apart.
Shapes: B images or volumes, M maps, P points, c 2 coordinates or 3, H W size of the targets, D slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# For uncertain_points: 3 * 12544 candidates take 0.3 MB per map, plus several temporaries of that size. Allocators
# reuse blocks of about 20 MB instead of requesting new pages from the system.
MAPS_PER_CHUNK = 64


class SamplingArea(Protocol):
    """Area from which points are drawn, for each image of a batch."""

    has_pixels: Tensor
    """(B,) bool, False for images with an empty area."""

    def draw(self, images: Tensor, num_points: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws independent, uniform points.

        Args:
            images: (M,) batch index of the image for each set of points.
            num_points: P.
            generator: Random generator on the device of the area; None: torch's default.

        Returns:
            (M, P, c).
        """


class WholeImage:
    """The area of images, or of volumes of `depth` slices, without ignored pixels."""

    def __init__(self, batch_size: int, device: torch.device, depth: int = 1) -> None:
        self.has_pixels = torch.ones(batch_size, dtype=torch.bool, device=device)
        self.depth = depth

    def draw(self, images: Tensor, num_points: int, generator: torch.Generator | None = None) -> Tensor:
        """See `SamplingArea.draw`."""
        options = {"device": self.has_pixels.device, "generator": generator}
        points = torch.rand(len(images), num_points, 2, **options)
        if self.depth == 1:
            return points
        slices = torch.randint(self.depth, (len(images), num_points), **options)
        return torch.cat((points, _middles(slices, self.depth)), dim=-1)


class ValidPixels:
    """The area of images with ignored pixels.

    Points are uniform over the valid area, so that a sparsely annotated image is compared at as many points as any
    other. An image without valid pixels also gets points (all in its first pixel), which `has_pixels` marks as
    meaningless.

    Args:
        valid: (B, H, W) or (B, D, H, W) bool.
    """

    def __init__(self, valid: Tensor) -> None:
        *_, self.height, self.width = valid.shape
        self.depth = valid.shape[1:-2].numel()
        flat = valid.flatten(1)
        rank = flat.cumsum(dim=1)
        self.counts = rank[:, -1]
        self.has_pixels = self.counts > 0
        # table[b, k] = index of the k-th valid pixel; ignored pixels go to a last column that is never read. Unlike
        # nonzero(), this does not synchronise with the device.
        num_pixels = flat.shape[1]
        pixels = torch.arange(num_pixels, dtype=torch.int32, device=valid.device).expand_as(flat)
        self.table = torch.zeros(len(flat), num_pixels + 1, dtype=torch.int32, device=valid.device)
        self.table.scatter_(1, torch.where(flat, rank - 1, num_pixels), pixels)

    def draw(self, images: Tensor, num_points: int, generator: torch.Generator | None = None) -> Tensor:
        """See `SamplingArea.draw`."""
        counts = self.counts[images, None]
        random = torch.rand(3, len(images), num_points, device=self.table.device, generator=generator)
        # rounding can raise a product to the count itself
        rank = torch.minimum((random[0] * counts).long(), counts - 1).clamp_(min=0)
        pixel = self.table[images[:, None], rank]
        rows = pixel // self.width
        x = (pixel % self.width + random[1]) / self.width
        y = (rows % self.height + random[2]) / self.height
        points = torch.stack((x, y), dim=-1)
        return points if self.depth == 1 else torch.cat((points, _middles(rows // self.height, self.depth)), dim=-1)


def _middles(slices: Tensor, depth: int) -> Tensor:
    """The third coordinate (*, 1) of numbers of slices."""
    return ((slices + 0.5) / depth)[..., None]


def one_set_per_image(
    area: SamplingArea, batch_size: int, num_points: int, generators: Sequence[torch.Generator] | None = None
) -> Tensor:
    """Draws uniform points for each image of a batch, (B, P, c), from the image's own generator if given."""
    images = torch.arange(batch_size, device=area.has_pixels.device)
    if generators is None:
        return area.draw(images, num_points)
    return torch.cat(
        [area.draw(image, num_points, generator) for image, generator in zip(images.split(1), generators, strict=True)]
    )


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Samples maps bilinearly within slices; outside the border they are 0.

    Args:
        maps: (M, C, h, w) or (M, C, D, h, w), float32 or float64.
        points: (M, P, c), with three coordinates if D is above 1.

    Returns:
        (M, C, P).
    """
    grid = torch.rsub(points, -1, alpha=-2).to(maps.dtype)[:, None]  # (M, 1, P, c), 2 * points - 1
    if points.shape[-1] > 2:  # noqa: PLR2004 - x and y
        grid = grid[:, None]
    elif maps.ndim > grid.ndim:  # a single slice, which interpolation along the depth would fade
        maps = maps.squeeze(2)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False).flatten(2)


def sample_labels(masks: Tensor, points: Tensor, valid: Tensor | None = None) -> Tensor:
    """Samples the target masks of one image bilinearly, so labels are soft between pixels.

    Ignored pixels do not contribute: points interpolate between valid neighbours only.

    Args:
        masks: (T, H, W) or (T, D, H, W) bool or number.
        points: (T, P, c), or (1, P, c) to sample all masks at the same points. With `valid`, they must lie in valid
            pixels.
        valid: (H, W) or (D, H, W) bool; None if all pixels count.

    Returns:
        (T, P) in [0, 1], float32 (float64 for masks in float64).
    """
    dtype = torch.promote_types(masks.dtype, torch.float32)
    if valid is not None:
        masks = masks * valid
    masks = masks.to(dtype)
    if len(points) == len(masks):
        labels = sample_points(masks[:, None], points)[:, 0]
    else:
        labels = sample_points(masks[None], points)[0]
    if valid is None:
        return labels
    ignored = sample_points((~valid).to(dtype)[None, None], points.reshape(1, -1, points.shape[-1])).view(
        points.shape[:2]
    )
    # A point in a valid pixel has at least a quarter of its weight there; the bound only matters without valid pixels.
    return labels / (1 - ignored).clamp(min=0.25)


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    images: Tensor,
    area: SamplingArea,
    *,
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws points where predicted masks are least certain, mixed with uniform points.

    Args:
        logits: (M, h, w) or (M, D, h, w) predicted masks.
        images: (M,) index of the image of each mask.
        area: Area from which points are drawn.
        num_points: P.
        oversample_ratio: Candidates per point, at least 1.
        importance_sample_ratio: Fraction in [0, 1] of points that are the least certain candidates.
        generator: Random generator; None: torch's default.

    Returns:
        (M, P, c).

    Source: Kirillov et al. 2020, "PointRend: Image Segmentation as Rendering", section 3.1, arXiv:1912.08193.
    """
    num_uncertain = int(importance_sample_ratio * num_points)
    chunks = []
    maps_per_chunk = max(1, MAPS_PER_CHUNK // logits.shape[1:-2].numel())
    for chunk, chunk_images in zip(logits.split(maps_per_chunk), images.split(maps_per_chunk), strict=True):
        candidates = area.draw(chunk_images, int(oversample_ratio * num_points), generator)
        certainty = sample_points(chunk[:, None], candidates)[:, 0].abs()
        chosen = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
        uncertain = candidates.gather(1, chosen[..., None].expand(-1, -1, candidates.shape[-1]))
        uniform = area.draw(chunk_images, num_points - num_uncertain, generator)
        chunks.append(torch.cat((uncertain, uniform), dim=1))
    return torch.cat(chunks)

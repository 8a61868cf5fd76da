"""Changes of intensity: drawn by the transforms of the CPU, applied to all channels of a batch that are changed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from nnunetv2.training.data_augmentation.custom_transforms.gaussian_blur import blur_weights, kernel_length
from nnunetv2.training.data_augmentation.custom_transforms.targets import nearest_voxels
from nnunetv2.training.data_augmentation.on_device.steps import ChannelStep, Parameters, Sample, per_channel

_SMALLEST = 1e-7  # of ranges and standard deviations that are divided by, as in batchgeneratorsv2


class NoiseStep(ChannelStep):
    """Gaussian noise. It is drawn in the worker: the generator of the device would draw other numbers."""

    def draw_channels(self, sample: Sample) -> dict[int, Tensor]:
        parameters = self.transform.get_parameters(image=sample.image_like())
        channels = parameters["apply_idx"].tolist()
        if not channels:
            return {}
        noise = self.transform._apply_to_image(torch.zeros(sample.shape), **parameters)
        return {channel: noise[channel] for channel in channels}

    def collate_channels(self, values: list[Tensor]) -> Parameters:
        return {"noise": torch.stack(values)}

    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        return images.add_(parameters["noise"])


class BrightnessStep(ChannelStep):
    """Multiplies a channel by a factor."""

    def draw_channels(self, sample: Sample) -> dict[int, float]:
        parameters = self.transform.get_parameters(image=sample.image_like())
        return dict(zip(parameters["apply_to_channel"].tolist(), parameters["multipliers"].tolist(), strict=True))

    def collate_channels(self, values: list[float]) -> Parameters:
        return {"factors": torch.tensor(values)}

    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        return images.mul_(per_channel(parameters["factors"], images))


class ContrastStep(ChannelStep):
    """Multiplies the distance from the mean of a channel."""

    def draw_channels(self, sample: Sample) -> dict[int, float]:
        parameters = self.transform.get_parameters(image=sample.image_like())
        channels = parameters["apply_to_channel"].tolist()
        return dict(zip(channels, parameters["multipliers"].tolist(), strict=True)) if channels else {}

    def collate_channels(self, values: list[float]) -> Parameters:
        return {"factors": torch.tensor(values)}

    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        flat, factors = images.flatten(1), parameters["factors"][:, None]
        means, (lowest, highest) = flat.mean(1, keepdim=True), flat.aminmax(dim=1, keepdim=True)
        changed = flat.sub_(means).mul_(factors).add_(means)
        if self.transform.preserve_range:
            changed = changed.clamp_(lowest, highest)
        return changed.view_as(images)


class GammaStep(ChannelStep):
    """Gamma correction of a channel within its range."""

    def draw_channels(self, sample: Sample) -> dict[int, tuple[float, bool, bool]]:
        parameters = self.transform.get_parameters(image=sample.image_like())
        channels = parameters["apply_to_channel"].tolist()
        if not channels:
            return {}
        values = (parameters[name].tolist() for name in ("gamma", "retain_stats", "invert_image"))
        return dict(zip(channels, zip(*values, strict=True), strict=True))

    def collate_channels(self, values: list[tuple[float, bool, bool]]) -> Parameters:
        exponents, retains, inverts = zip(*values, strict=True)
        signs = [-1.0 if invert else 1.0 for invert in inverts]
        return {"exponents": torch.tensor(exponents), "retains": torch.tensor(retains), "signs": torch.tensor(signs)}

    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        exponents, retains, signs = (parameters[name][:, None] for name in ("exponents", "retains", "signs"))
        values = images.flatten(1).mul_(signs)
        deviations, means = torch.std_mean(values, 1, keepdim=True)
        lowest, highest = values.aminmax(dim=1, keepdim=True)
        extents = highest - lowest
        values = values.sub_(lowest).div_(extents.clamp(min=_SMALLEST)).pow_(exponents).mul_(extents).add_(lowest)
        new_deviations, new_means = torch.std_mean(values, 1, keepdim=True)
        factors = torch.where(retains, deviations / new_deviations.clamp_(min=_SMALLEST), 1)
        old_means, new_means = torch.where(retains, means, 0), torch.where(retains, new_means, 0)
        return values.sub_(new_means).mul_(factors).add_(old_means).mul_(signs).view_as(images)


class BlurStep(ChannelStep):
    """Gaussian blur by shifted sums; kernels of different lengths are filled up with zeros."""

    def draw_channels(self, sample: Sample) -> dict[int, tuple[list[float], list[int]]]:
        """Draws the sigmas per axis of each channel; and the margins that short axes need, see the transform."""
        parameters = self.transform.get_parameters(image=sample.image_like())
        channels = torch.nonzero(parameters["apply_to_channel"])[:, 0].tolist()
        if not channels:
            return {}
        sigmas = parameters["sigmas"]
        sigmas = [sigmas] * len(channels) if self.transform.synchronize_channels else sigmas
        longest = kernel_length(float(np.max(sigmas)))
        margins = [max(0, longest // 2 + 1 - size) for size in sample.shape[1:]]
        return {channel: (per_axis, margins) for channel, per_axis in zip(channels, sigmas, strict=True)}

    def collate_channels(self, values: list[tuple[list[float], list[int]]]) -> Parameters:
        groups = []
        for margins in sorted({tuple(margins) for _, margins in values}):
            members = [number for number, value in enumerate(values) if tuple(value[1]) == margins]
            kernels = [_kernels(axis) for axis in zip(*(values[member][0] for member in members), strict=True)]
            groups.append({"members": torch.tensor(members), "margins": list(margins), "kernels": kernels})
        return {"groups": groups}

    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        groups = parameters["groups"]
        if len(groups) == 1:
            return _blur(images, groups[0])
        for group in groups:
            images[group["members"]] = _blur(images[group["members"]], group)
        return images


def _kernels(sigmas: tuple[float, ...]) -> Tensor:
    """Halves of kernels, from the middle outwards: (length, n), filled up with zeros."""
    weights = [blur_weights(sigma) for sigma in sigmas]
    longest = max(map(len, weights))
    return torch.tensor([one + [0.0] * (longest - len(one)) for one in weights]).T.contiguous()


def _blur(images: Tensor, group: Parameters) -> Tensor:
    margins, sizes = group["margins"], images.shape[1:]
    if any(margins):
        around = [margin for margin in reversed(margins) for _ in ("before", "after")]  # the last axis comes first
        images = pad(images[:, None], around, mode="replicate")[:, 0]
    for axis, kernels in enumerate(group["kernels"], start=1):
        half, size = len(kernels) - 1, images.shape[axis]
        if half == 0:
            continue
        ends = images.narrow(axis, 1, half).flip(axis), images.narrow(axis, size - 1 - half, half).flip(axis)
        reflected = torch.cat((ends[0], images, ends[1]), axis)
        images = images * per_channel(kernels[0], images)
        for step in range(1, half + 1):
            both = reflected.narrow(axis, half - step, size) + reflected.narrow(axis, half + step, size)
            images.addcmul_(both, per_channel(kernels[step], images))
    return images[(slice(None), *(slice(m, m + size) for m, size in zip(margins, sizes, strict=True)))]


class LowResolutionStep(ChannelStep):
    """Downsampling by the nearest voxel and linear upsampling, as one linear interpolation per axis.

    Channels with different resolutions are interpolated together, because the voxels to take are known beforehand.
    """

    def draw_channels(self, sample: Sample) -> dict[int, list[tuple[int, int]]]:
        """Draws the resolution of each channel: size and new size per axis."""
        parameters = self.transform.get_parameters(image=sample.image_like())
        channels, scales = map(_as_list, (parameters["apply_to_channel"], parameters["scales"]))
        sizes = sample.shape[1:]
        return {
            channel: [(size, round(size * factor)) for size, factor in zip(sizes, factors, strict=True)]
            for channel, factors in zip(channels, scales, strict=True)
        }

    def collate_channels(self, values: list[list[tuple[int, int]]]) -> Parameters:
        axes = []
        for resolutions in zip(*values, strict=True):
            if all(size == new_size for size, new_size in resolutions):
                axes.append(None)
                continue
            lower, upper, weights = map(
                torch.tensor, zip(*(_interpolation(*each) for each in resolutions), strict=True)
            )
            axes.append({"lower": lower, "upper": upper, "weights": weights})
        return {"axes": axes}

    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        for axis, interpolation in enumerate(parameters["axes"], start=1):
            if interpolation is None:
                continue
            lower, upper, weights = (
                _along(interpolation[name], axis, images) for name in ("lower", "upper", "weights")
            )
            ends = (images.gather(axis, voxels.expand_as(images)) for voxels in (lower, upper))
            images = torch.lerp(*ends, weights)
        return images


def _as_list(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor) else list(values)


def _along(values: Tensor, axis: int, images: Tensor) -> Tensor:
    """Values (n, size of an axis) in the shape in which they apply to images (n, *spatial)."""
    return values.view(-1, *(size if number == axis else 1 for number, size in enumerate(images.shape) if number > 0))


@lru_cache(maxsize=1024)
def _interpolation(size: int, new_size: int) -> tuple[list[int], list[int], list[float]]:
    """For each voxel of an axis that was resampled to another size and back: two original voxels, and the weight of
    the second; computed in float32 as torch does."""
    taken = np.array(nearest_voxels(size, new_size))
    positions = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * (np.float32(new_size) / np.float32(size))
    positions = np.maximum(positions - np.float32(0.5), 0)
    lower = np.minimum(positions.astype(int), new_size - 1)
    upper = np.minimum(lower + 1, new_size - 1)
    return taken[lower].tolist(), taken[upper].tolist(), (positions - lower).clip(0, 1).tolist()

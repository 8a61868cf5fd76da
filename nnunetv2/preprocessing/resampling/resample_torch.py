"""Linear resampling with torch: faster than cubic splines on many cores or a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn import functional

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.resampling.default_resampling import Shape, Spacing, determine_do_sep_z_and_axis

_LINEAR = {3: "bilinear", 4: "trilinear"}  # by rank, including channels
_SCALE = 1000  # shares of labels are stored in float16 as thousandths, which suits its precision
_CLEAR_MAJORITY = 0.7 * _SCALE


def resample_torch_simple(
    data: torch.Tensor | np.ndarray,
    new_shape: Shape,
    is_seg: bool = False,
    num_threads: int = 4,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - an immutable value, and upstream's signature
    memefficient_seg_resampling: bool = False,
    mode: str = "linear",
) -> torch.Tensor | np.ndarray:
    """Resizes every channel of `(C, X, Y, Z)` or `(C, Y, Z)` at once with `torch.nn.functional.interpolate`.

    Args:
        data: image, logits or labels.
        new_shape: the result's size without channels.
        is_seg: True for labels; the result is then int8, or int16 for labels of 127 and above.
        num_threads: CPU threads during the call.
        device: where to compute; the result is moved back to the device of `data`.
        memefficient_seg_resampling: process labels one by one and require a share above one half, instead of storing
            all shares; voxels without a majority become 0.
        mode: "linear", or a mode of `interpolate`.
    """
    new_shape = tuple(int(size) for size in new_shape)
    if tuple(data.shape[1:]) == new_shape:
        return data
    if mode == "linear":
        if data.ndim not in _LINEAR:
            raise UsageError(f"Linear resampling takes (C, X, Y, Z) or (C, Y, Z); got shape {tuple(data.shape)}")
        mode = _LINEAR[data.ndim]
    tensor = torch.from_numpy(np.ascontiguousarray(data)) if isinstance(data, np.ndarray) else data
    with torch.no_grad(), _threads(num_threads):
        resize = _resize_image
        if is_seg:
            resize = _resize_labels_one_by_one if memefficient_seg_resampling else _resize_labels
        result = resize(tensor.to(device), new_shape, mode).to(tensor.device)
    return result.numpy() if isinstance(data, np.ndarray) else result


def resample_torch_fornnunet(
    data: torch.Tensor | np.ndarray,
    new_shape: Shape,
    current_spacing: Spacing,
    new_spacing: Spacing,
    is_seg: bool = False,
    num_threads: int = 4,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - an immutable value, and upstream's signature
    memefficient_seg_resampling: bool = False,
    force_separate_z: bool | None = None,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
    mode: str = "linear",
    aniso_axis_mode: str = "nearest-exact",
) -> torch.Tensor | np.ndarray:
    """Resamples `(C, X, Y, Z)` to a given shape; anisotropic images in-plane first. A function that plans can name.

    Args:
        current_spacing: mm per voxel; with `new_spacing` it only decides whether one axis is resized separately.
        new_spacing: mm per voxel of the result.
        force_separate_z: None: decided by the spacings.
        separate_z_anisotropy_threshold: ratio of spacings above which one axis is resized separately.
        mode: interpolation; in-plane if one axis is resized separately.
        aniso_axis_mode: interpolation along the separate axis.

    The other arguments are those of `resample_torch_simple`.
    """
    if data.ndim != 4:
        raise UsageError(f"Resampling takes (channels, x, y, z); got shape {tuple(data.shape)}")
    new_shape = [int(size) for size in new_shape]
    options = {
        "is_seg": is_seg,
        "num_threads": num_threads,
        "device": device,
        "memefficient_seg_resampling": memefficient_seg_resampling,
    }
    separate_z, axis = determine_do_sep_z_and_axis(
        force_separate_z, current_spacing, new_spacing, separate_z_anisotropy_threshold
    )
    if not separate_z:
        return resample_torch_simple(data, new_shape, mode=mode, **options)
    tensor = torch.from_numpy(np.ascontiguousarray(data)) if isinstance(data, np.ndarray) else data
    # Slices become channels: (C, X, Y, Z) -> (C * slices, the other two axes)
    slices_first = tensor.movedim(axis + 1, 1)
    in_plane = resample_torch_simple(
        slices_first.flatten(0, 1), [s for i, s in enumerate(new_shape) if i != axis], mode=mode, **options
    )
    volume = in_plane.unflatten(0, slices_first.shape[:2]).movedim(1, axis + 1)
    result = resample_torch_simple(volume, new_shape, mode=aniso_axis_mode, **options)
    return result.numpy() if isinstance(data, np.ndarray) else result


def _resize_image(data: torch.Tensor, new_shape: Sequence[int], mode: str) -> torch.Tensor:
    return functional.interpolate(data[None].float(), tuple(new_shape), mode=mode)[0]


def _label_dtype(labels: torch.Tensor) -> torch.dtype:
    return torch.int8 if labels.max() < 127 else torch.int16


def _resize_labels(data: torch.Tensor, new_shape: Sequence[int], mode: str) -> torch.Tensor:
    """Selects the label with the largest share; the first one if float16 shares are equal."""
    labels = torch.unique(data)
    result = torch.zeros((data.shape[0], *new_shape), dtype=_label_dtype(labels), device=data.device)
    shares = torch.empty((len(labels), *result.shape), dtype=torch.float16, device=data.device)
    undecided = torch.ones_like(result, dtype=torch.bool)
    for index, label in enumerate(labels):
        shares[index] = _resize_image((data == label).float() * _SCALE, new_shape, mode)
        clear = shares[index] > _CLEAR_MAJORITY
        result[clear] = label.to(result.dtype)
        undecided &= ~clear
    if undecided.any():  # restricts the costly argmax to the few voxels near a boundary
        result[undecided] = labels[shares[:, undecided].argmax(0)].to(result.dtype)
    return result


def _resize_labels_one_by_one(data: torch.Tensor, new_shape: Sequence[int], mode: str) -> torch.Tensor:
    labels = torch.unique(data)
    result = torch.zeros((data.shape[0], *new_shape), dtype=_label_dtype(labels), device=data.device)
    for label in labels:
        result[_resize_image((data == label).float(), new_shape, mode) > 0.5] = label.to(result.dtype)
    return result


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

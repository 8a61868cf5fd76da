"""Rotary position embedding of image patches (RoPE): positions as rotations of queries and keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NormalizeCoords = Literal["min", "max", "separate"]
REMEMBERED_SIZES = 64  # a training run needs one or two, multi-scale testing about 20


class Rotation(NamedTuple):
    """Sines and cosines that rotate queries and keys of all tokens including the prefix, each (N, head_dim).

    Prefix tokens (class, storage) have no position in the image and are not rotated: cosine 1, sine 0.
    """

    cosine: Tensor
    signed_sine: Tensor  # negative in the first half of the channels


def rotate(vectors: Tensor, rotation: Rotation) -> Tensor:
    """Rotates each pair of channels (c, c + head_dim / 2) by the angle of its token.

    Args:
        vectors: (B, N, 2, num_heads, head_dim): stacked queries and keys, any floating dtype.
        rotation: Result of `RopePositionEmbedding.rotation`.

    Returns:
        Like `vectors`; computed in the dtype of the rotation.
    """
    cosine, signed_sine = (each[:, None, None] for each in rotation)
    if vectors.dtype != cosine.dtype and not torch.compiler.is_compiling():  # which writes kernels of its own
        return _RotationOfHalves.apply(vectors, cosine, signed_sine)
    turned = vectors.to(cosine.dtype)
    turned = turned * cosine + _partners(turned) * signed_sine
    return turned.to(vectors.dtype)


def rotate_packed(packed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    """Rotates the queries and keys among packed (B, N, 3, num_heads, head_dim) queries, keys and values.

    Returns:
        Queries, keys and values, each (B, N, num_heads, head_dim) in the dtype given; see `rotate`.
    """
    cosine, signed_sine = (each[:, None, None] for each in rotation)
    if packed.dtype != cosine.dtype and not torch.compiler.is_compiling():
        return _RotationOfPacked.apply(packed, cosine, signed_sine)
    return *rotate(packed[:, :, :2], rotation).unbind(2), packed[:, :, 2]


def _partners(vectors: Tensor) -> Tensor:
    return vectors.roll(vectors.shape[-1] // 2, dims=-1)


class _RotationOfHalves(torch.autograd.Function):
    """Rotates vectors in half precision by angles in float32, with three kernels forwards and three backwards."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, signed_sine)
        return _rotated(vectors, cosine, signed_sine)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # The inverse of a rotation is the one by the opposite angle.
        return _rotated(gradient, *ctx.saved_tensors, sign=-1), None, None


def _rotated(vectors: Tensor, cosine: Tensor, signed_sine: Tensor, sign: int = 1, out: Tensor | None = None) -> Tensor:
    with torch.autocast(vectors.device.type, enabled=False):  # which would cast by kernels of its own
        out = torch.empty_like(vectors) if out is None else out
        return torch.addcmul(vectors * cosine, _partners(vectors), signed_sine, value=sign, out=out)


class _RotationOfPacked(torch.autograd.Function):
    """As `_RotationOfHalves`; the gradients of query, key and value are written to one tensor, without sums."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, cosine: Tensor, signed_sine: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cosine, signed_sine)
        return *_rotated(packed[:, :, :2], cosine, signed_sine).unbind(2), packed[:, :, 2]

    @staticmethod
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None, None]:
        cosine, signed_sine = ctx.saved_tensors
        pair = torch.stack((query, key), dim=2)
        gradient = pair.new_empty((*pair.shape[:2], 3, *pair.shape[3:]))
        _rotated(pair, cosine, signed_sine, sign=-1, out=gradient[:, :, :2])
        gradient[:, :, 2] = value
        return gradient, None, None


class RopePositionEmbedding(nn.Module):
    """Angles for the centre of every patch: half of the channels encode the row, the other half the column.

    Has no weights. In train mode the coordinates are shifted (`shift_coords`), scaled per axis (`jitter_coords`) and
    scaled jointly (`rescale_coords`), if these are given; each call draws new values.

    Args:
        embed_dim: Channels of the tokens, a multiple of `4 * num_heads`.
        num_heads: Heads of the attention.
        normalize_coords: What makes up the range [-1, 1]: "separate" each side of the image, "max" its longer side,
            "min" its shorter side (the longer one then runs past the range).
        base: The periods run from 1 to (almost) `base`, in units of half the image side. None if both are given below.
        min_period: Smallest period, instead of `base`.
        max_period: Largest period (inclusive).
        rescale_coords: Maximum factor f, at least 1; drawn log-uniformly from [1 / f, f], the same for both axes.
        jitter_coords: Maximum factor f, at least 1; drawn log-uniformly from [1 / f, f] for each axis.
        shift_coords: Maximum shift, drawn uniformly for each axis.
        dtype: Dtype of the angles; casting the model to lower precision does not change it.
        device: Device on which the periods are created.

    Raises:
        ValueError: If an argument is out of range.

    Source: Simeoni et al. 2025, "DINOv3", section 3.2, arXiv:2508.10104; Su et al. 2021, "RoFormer", equation 34,
    arXiv:2104.09864.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        num_heads: int,
        normalize_coords: NormalizeCoords = "separate",
        base: float | None = 100.0,
        min_period: float | None = None,
        max_period: float | None = None,
        rescale_coords: float | None = None,
        jitter_coords: float | None = None,
        shift_coords: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if embed_dim % (4 * num_heads):
            raise ValueError(
                f"embed_dim {embed_dim} with {num_heads} heads was given; rotary positions need a multiple of 4 "
                f"channels in each head."
            )
        _check_periods(base, min_period, max_period)
        _check_coordinates(normalize_coords, shift_coords, jitter_coords, rescale_coords)
        self.base, self.min_period, self.max_period = base, min_period, max_period
        self.normalize_coords = normalize_coords
        self.shift_coords, self.jitter_coords, self.rescale_coords = shift_coords, jitter_coords, rescale_coords
        self.head_dim = embed_dim // num_heads
        self.dtype = dtype
        self._remembered: dict[tuple[int, int, int], tuple[Tensor, Rotation]] = {}
        self.register_buffer("periods", torch.empty(self.head_dim // 4, device=device, dtype=dtype))
        self.reset_periods()

    @property
    def is_random(self) -> bool:
        """True if the next call draws an augmentation."""
        given = (self.shift_coords, self.jitter_coords, self.rescale_coords)
        return self.training and any(value is not None for value in given)

    @torch.no_grad()
    def reset_periods(self) -> None:
        """Computes the periods from `base`, or from the smallest and largest period."""
        # On the CPU, for identical periods on every device; and arithmetic on the meta device would import
        # torch's compiler, which takes seconds.
        count, options = len(self.periods), {"device": "cpu", "dtype": self.dtype}
        if self.base is not None:
            periods = self.base ** (2 * torch.arange(count, **options) / (self.head_dim // 2))
        else:
            ratio = self.max_period / self.min_period
            periods = self.min_period * ratio ** torch.linspace(0, 1, count, **options)
        self.periods.copy_(periods)
        self._remembered.clear()

    def forward(self, *, H: int, W: int) -> tuple[Tensor, Tensor]:  # noqa: N803 - names of the original
        """Computes sines and cosines for a map of H x W patches.

        Returns:
            Sine and cosine, each (H * W, head_dim), row by row. The second half of the channels repeats the first,
            which consists of the angles of the row and of the column.
        """
        coordinates = self._patch_centres(H, W)
        if self.is_random:
            coordinates = self._augment(coordinates)
        angles = 2 * math.pi * coordinates[:, :, None] / self.periods  # (HW, 2, head_dim / 4)
        angles = angles.flatten(1).tile(2)
        return angles.sin(), angles.cos()

    def rotation(self, height: int, width: int, num_prefix_tokens: int) -> Rotation:
        """Returns the rotation of a prefix and a map of height x width patches.

        Results are cached for the last sizes unless random, and shared between callers: do not write to them.
        """
        if self.is_random or torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
            return self._make_rotation(height, width, num_prefix_tokens)
        key = (height, width, num_prefix_tokens)
        periods, rotation = self._remembered.get(key, (None, None))
        if rotation is None or periods is not self.periods:  # the buffer was replaced by a move or cast
            if len(self._remembered) >= REMEMBERED_SIZES:
                self._remembered.clear()
            with torch.inference_mode(False):  # tensors cached in prediction must be usable in training
                rotation = self._make_rotation(height, width, num_prefix_tokens)
            self._remembered[key] = (self.periods, rotation)
        return rotation

    def _make_rotation(self, height: int, width: int, num_prefix_tokens: int) -> Rotation:
        return make_rotation(*self(H=height, W=width), num_prefix_tokens)

    def _patch_centres(self, height: int, width: int) -> Tensor:
        """Computes row and column of every patch centre, (height * width, 2)."""
        lengths = {
            "separate": (height, width),
            "max": (max(height, width),) * 2,
            "min": (min(height, width),) * 2,
        }[self.normalize_coords]
        rows, columns = (
            torch.arange(0.5, count, device=self.periods.device, dtype=self.dtype) / length
            for count, length in zip((height, width), lengths, strict=True)
        )
        return 2.0 * torch.cartesian_prod(rows, columns) - 1.0

    def _augment(self, coordinates: Tensor) -> Tensor:
        if self.shift_coords is not None:
            coordinates = coordinates + coordinates.new_empty(2).uniform_(-self.shift_coords, self.shift_coords)
        for largest, count in ((self.jitter_coords, 2), (self.rescale_coords, 1)):
            if largest is not None:
                exponent = math.log(largest)
                coordinates = coordinates * coordinates.new_empty(count).uniform_(-exponent, exponent).exp()
        return coordinates

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RopePositionEmbedding:
        # Otherwise, casting the model to half precision would change angles by up to 0.01.
        before = self.periods
        super()._apply(fn, recurse)
        if self.periods.dtype.itemsize < self.dtype.itemsize:
            self.periods = before.to(self.periods.device, self.dtype)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._remembered.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remembered": {}}  # the cache is neither copied nor saved


def make_rotation(sine: Tensor, cosine: Tensor, num_prefix_tokens: int) -> Rotation:
    """Creates the rotation of tokens with these sines and cosines, each (N, head_dim), after an unrotated prefix."""
    first, second = sine.chunk(2, dim=-1)
    prefix = (0, 0, num_prefix_tokens, 0)
    return Rotation(F.pad(cosine, prefix, value=1.0), F.pad(torch.cat((-first, second), dim=-1), prefix))


def _check_periods(base: float | None, min_period: float | None, max_period: float | None) -> None:
    given = f"base {base}, min_period {min_period} and max_period {max_period} were given for the rotary positions"
    if (base is None) == (min_period is None) or (min_period is None) != (max_period is None):
        raise ValueError(f"{given}; give either base alone, or both periods and base=None.")
    if any(value is not None and value <= 0 for value in (base, min_period, max_period)):
        raise ValueError(f"{given}; give positive numbers.")


def _check_coordinates(
    normalize_coords: str, shift_coords: float | None, jitter_coords: float | None, rescale_coords: float | None
) -> None:
    if normalize_coords not in get_args(NormalizeCoords):
        raise ValueError(
            f"normalize_coords {normalize_coords!r} is unknown; choose one of {', '.join(get_args(NormalizeCoords))}."
        )
    if shift_coords is not None and shift_coords < 0:
        raise ValueError(f"shift_coords {shift_coords} was given; give None or a number of at least 0.")
    for name, factor in (("jitter_coords", jitter_coords), ("rescale_coords", rescale_coords)):
        if factor is not None and factor < 1:
            raise ValueError(f"{name} {factor} was given; give None or a factor of at least 1.")

"""Intensity normalisations that plans can name, one class each; applied per channel, before resampling."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from nnunetv2.errors import DataError, UsageError

_SMALLEST_DIVISOR = {np.dtype(np.float16): 1e-4}  # representable in the dtype; 1e-8 for the wider ones


class ImageNormalization(ABC):
    """Normalises one channel.

    Args:
        use_mask_for_norm: compute statistics inside the nonzero region only, if the scheme supports it.
        intensityproperties: statistics of the channel's foreground over the training set, from the fingerprint
            (`mean`, `std`, `percentile_00_5`, `percentile_99_5`, ...).
        target_dtype: floating point dtype of the result.
    """

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true: bool | None = None

    def __init__(
        self,
        use_mask_for_norm: bool | None = None,
        intensityproperties: dict | None = None,
        target_dtype: type[np.number] = np.float32,
    ) -> None:
        if not (use_mask_for_norm is None or isinstance(use_mask_for_norm, bool)):
            raise UsageError(f"use_mask_for_norm is {use_mask_for_norm!r}; it must be true, false or None")
        if not isinstance(intensityproperties, dict):
            raise UsageError(f"intensityproperties is {intensityproperties!r}; it must be a dictionary of statistics")
        self.use_mask_for_norm = use_mask_for_norm
        self.intensityproperties = intensityproperties
        self.target_dtype = target_dtype

    @abstractmethod
    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        """Returns the normalised image; the input is not modified.

        Args:
            image: one channel, `(X, Y, Z)`.
            seg: labels of the same shape, negative outside the nonzero region; only some schemes use it.
        """

    def _converted(self, image: np.ndarray) -> np.ndarray:
        return image.astype(self.target_dtype, copy=False)

    def _divisor(self, spread: float) -> float:
        """Bounds `spread` away from zero, for constant images."""
        return max(spread, _SMALLEST_DIVISOR.get(np.dtype(self.target_dtype), 1e-8))


class ZScoreNormalization(ImageNormalization):
    """Zero mean and unit standard deviation per image; with a mask, only inside it, and values outside are kept."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = True

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        image = self._converted(image)
        if not self.use_mask_for_norm:
            return (image - image.mean()) / self._divisor(image.std())
        if seg is None:
            raise UsageError("Normalisation with use_mask_for_norm needs labels that are negative outside the mask")
        mask = seg >= 0
        inside = image[mask]
        normalized = image.copy()
        normalized[mask] = (inside - inside.mean()) / self._divisor(inside.std())
        return normalized


class CTNormalization(ImageNormalization):
    """Clips to the training set's 0.5 and 99.5 percentiles, subtracts its mean, divides by its standard deviation."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        statistics = self.intensityproperties
        missing = {"mean", "std", "percentile_00_5", "percentile_99_5"} - set(statistics)
        if missing:
            raise UsageError(f"CTNormalization needs {', '.join(sorted(missing))} in the plans' intensity properties")
        clipped = np.clip(self._converted(image), statistics["percentile_00_5"], statistics["percentile_99_5"])
        return (clipped - statistics["mean"]) / self._divisor(statistics["std"])


class NoNormalization(ImageNormalization):
    """Keeps the values unchanged."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        return self._converted(image)


class RescaleTo01Normalization(ImageNormalization):
    """Maps the image's smallest value to 0 and its largest to 1."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        image = self._converted(image)
        above_lowest = image - image.min()
        return above_lowest / self._divisor(above_lowest.max())


class RGBTo01Normalization(ImageNormalization):
    """Maps 8-bit colours from 0..255 to 0..1."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        lowest, highest = image.min(), image.max()
        if lowest < 0 or highest > 255:
            raise DataError(
                f"The channel is declared as rgb_to_0_1, which takes values from 0 to 255, but it has values from "
                f"{lowest:g} to {highest:g}; choose another normalisation by its name in dataset.json (channel_names)"
            )
        return self._converted(image) / 255.0

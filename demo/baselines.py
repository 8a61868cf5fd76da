"""Two simple baselines for a deep network: thresholds, and a random forest on filter responses."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_li, threshold_otsu
from sklearn.ensemble import RandomForestClassifier

from demo.scratch_assay import LABELS

FILTER_SCALES = (1.0, 2.0, 4.0, 8.0)  # pixels
TEXTURE_SCALE = 3.0  # pixels, width of the window of the local standard deviation
NUM_TREES = 60
PIXELS_PER_FRAME = 4000


def threshold_segmentation(frame: np.ndarray) -> np.ndarray:
    """Label map (H, W) of a frame (2, H, W): Otsu on the stain, Li on the log local deviation of the light.

    Among the thresholds and scales tried on the reference labels, this pair is strong: a fair baseline.
    """
    stain, oblique = (channel.astype(np.float64) for channel in frame)
    smooth = ndimage.gaussian_filter(stain, 1.0)
    nucleus = smooth > threshold_otsu(smooth)
    texture = np.log(_local_deviation(oblique, TEXTURE_SCALE) + 1e-3)
    cell = texture > threshold_li(texture)
    return np.where(nucleus, LABELS["nucleus"], np.where(cell, LABELS["cytoplasm"], LABELS["background"]))


def random_forest_segmentation(
    training_frames: list[np.ndarray], training_labels: list[np.ndarray], frames: list[np.ndarray], *, seed: int = 0
) -> list[np.ndarray]:
    """Label maps (H, W) of `frames` (each (2, H, W)) by a forest trained on a sample of the training pixels."""
    generator = np.random.default_rng(seed)
    features, targets = [], []
    for frame, labels in zip(training_frames, training_labels, strict=True):
        chosen = generator.choice(labels.size, PIXELS_PER_FRAME, replace=False)
        features.append(filter_responses(frame)[chosen])
        targets.append(labels.ravel()[chosen])
    forest = RandomForestClassifier(NUM_TREES, min_samples_leaf=5, random_state=seed, n_jobs=2)
    forest.fit(np.concatenate(features), np.concatenate(targets))
    return [forest.predict(filter_responses(frame)).reshape(frame.shape[1:]) for frame in frames]


def filter_responses(frame: np.ndarray) -> np.ndarray:
    """Per pixel: Gaussian mean, gradient magnitude and local deviation of both channels at four scales; (H * W, 24)."""
    responses = []
    for channel in frame.astype(np.float64):
        for scale in FILTER_SCALES:
            mean = ndimage.gaussian_filter(channel, scale)
            gradient = ndimage.gaussian_gradient_magnitude(channel, scale)
            responses += [mean, gradient, _local_deviation(channel, scale)]
    return np.stack([response.ravel() for response in responses], axis=1).astype(np.float32)


def _local_deviation(image: np.ndarray, scale: float) -> np.ndarray:
    """Standard deviation under a Gaussian window of `scale` pixels."""
    mean = ndimage.gaussian_filter(image, scale)
    return np.sqrt(np.clip(ndimage.gaussian_filter(image**2, scale) - mean**2, 0, None))

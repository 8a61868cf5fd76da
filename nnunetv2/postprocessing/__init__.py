"""Postprocessing of segmentations: largest connected components, kept where that helps in cross-validation."""

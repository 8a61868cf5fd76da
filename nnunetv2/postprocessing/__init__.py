"""Postprocessing of segmentations: keep only the largest component where this helps in cross-validation."""

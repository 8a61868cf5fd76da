"""Overlap metrics of predicted segmentations against reference segmentations."""

"""Overlap metrics of predicted segmentations against references."""

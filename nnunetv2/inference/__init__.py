"""Inference: from images to segmentations with a trained model."""

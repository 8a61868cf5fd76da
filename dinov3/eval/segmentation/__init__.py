"""Semantic segmentation: settings, data, losses, models, training and evaluation."""

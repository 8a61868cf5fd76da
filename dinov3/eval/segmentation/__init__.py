"""Semantic segmentation: models, losses, schedules and inference."""

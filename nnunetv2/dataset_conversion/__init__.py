"""Datasets of other layouts as raw datasets of nnU-Net."""

"""Planners with other resampling methods."""

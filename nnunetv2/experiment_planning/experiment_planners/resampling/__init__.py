"""Planners that resample in other ways."""
